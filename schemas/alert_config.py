"""`[alert]`: whom `hypocenter alert` tells, how it is let in there, and how long everything may take."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from schemas import bounds, metrics_address
from schemas.bounds import Rule, each_matching, key, matching, within
from schemas.errors import UsageError
from schemas.secrets import VARIABLE

_NAME: Final = matching(r"[A-Za-z0-9._-]{1,128}", "1 to 128 letters, digits, dots, dashes or _")
_PAIR: Final = ("alertmanager_username", "alertmanager_password_env")
_LOGINS: Final = (*_PAIR, "alertmanager_token_env")


@dataclass(frozen=True, slots=True)
class AlertConfig:
    """The lake is that of `[collect]`. Over https the certificate is always verified."""

    #: Alertmanagers, all of which are told; default: incidents go to the lake (and Kafka's topic) alone.
    alertmanager: tuple[str, ...] = key(
        (), each_matching(r"https?://[^\s/?#@]+(/[^\s?#]*)?", 'a list of "http://HOST:PORT", none twice')
    )
    alertmanager_cafile: str | None = key(None, matching(r"[^\0]+", "the path of a PEM file"))
    alertmanager_username: str | None = key(None, Rule(lambda name: name != "" and ":" not in name, "a name without :"))
    alertmanager_password_env: str | None = key(None, VARIABLE)
    alertmanager_token_env: str | None = key(None, VARIABLE)
    resend_s: float = key(60.0, within(1, 3600, "seconds"))  # an open alert is told again so often
    ends_ahead_s: float = key(900.0, within(5, 86_400, "seconds"))  # what is not told again ends by itself so late
    hold_s: float = key(30.0, within(0, 3600, "seconds"))  # an incident that ended before it was told stays so long
    page_age_s: float = key(21_600.0, within(1, 31_536_000, "seconds"))  # older ones are stored and not told
    timeout_s: float = key(5.0, within(0.1, 300, "seconds"))  # of a request to an Alertmanager
    queue_max: int = key(20_000, within(1, 1_000_000, "incidents"))  # waiting to be told; above it no log is read
    metrics: str = key(metrics_address.ALERT, metrics_address.rule())
    commit_s: float = key(30.0, within(0.05, 3600, "seconds"))  # between two commits where nothing changes
    lease_s: float = key(15.0, within(1, 600, "seconds"))  # an owner silent for so long is replaced
    group: str | None = key(None, _NAME)  # a Kafka consumer group; default: every partition
    group_instance: str | None = key(None, _NAME)
    group_session_s: float = key(30.0, within(6, 1800, "seconds"))

    def __post_init__(self) -> None:
        bounds.check(self)
        if self.ends_ahead_s < 2 * self.resend_s:
            raise UsageError(
                f"ends_ahead_s is at least twice resend_s, not {self.ends_ahead_s:g} with {self.resend_s:g}"
            )
        self._check_access()

    # What would silently not be used is somebody's mistaken belief in a protection; and no secret goes out readable.
    def _check_access(self) -> None:
        given = [name for name in _LOGINS if getattr(self, name) is not None]
        if len(given) == 1 and given[0] in _PAIR:
            missing = next(name for name in _PAIR if name not in given)
            raise UsageError(f"{missing} is missing: {given[0]} needs it")
        if len(given) > 1 and set(given) != set(_PAIR):
            raise UsageError(f"{given[0]} and {given[-1]} are two logins; give one")
        parts = [urlsplit(url) for url in self.alertmanager]
        if self.alertmanager and self.alertmanager_cafile and not any(each.scheme == "https" for each in parts):
            raise UsageError("alertmanager_cafile is set, but no Alertmanager's URL begins with https")
        readable = [each.netloc for each in parts if each.scheme == "http" and not _loopback(each.hostname or "")]
        if given and readable:
            raise UsageError(
                f"{given[0]} is set, but http://{readable[0]} would get the secret in plain text; use https"
            )


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
