"""How an Alertmanager lets us in: which authority its certificate must have, and a login. Secrets: the environment.

RFC 7617 defines the header of a name and a password, RFC 6750 that of a token.
"""

import base64
import ssl
from typing import NamedTuple

from schemas import tls
from schemas.alert_config import AlertConfig
from schemas.errors import UsageError
from schemas.secrets import secret


class Access(NamedTuple):
    """Headers of each request, and the context of TLS; None for the system's authorities."""

    headers: dict[str, str]
    context: ssl.SSLContext | None


OPEN = Access({}, None)


def access(config: AlertConfig) -> Access:
    """Return what `config` says.

    Raises:
        UsageError: a secret's variable is not set or no header can have it, or the authority's file cannot be used.
    """
    context = None
    if config.alertmanager_cafile is not None:
        context = tls.verifying("alert.alertmanager_cafile", config.alertmanager_cafile)
    return Access(_headers(config), context)


def _headers(config: AlertConfig) -> dict[str, str]:
    if config.alertmanager_token_env is not None:
        token = secret("alert.alertmanager_token_env", config.alertmanager_token_env)
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageError(f"the environment variable {config.alertmanager_token_env} holds what no token can be")
        return {"Authorization": f"Bearer {token}"}
    if config.alertmanager_username is not None:
        password = secret("alert.alertmanager_password_env", config.alertmanager_password_env)
        pair = f"{config.alertmanager_username}:{password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}
