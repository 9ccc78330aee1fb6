"""What `[alert]` refuses: logins that are half there, and secrets that would go out readable."""

import pytest

from schemas.alert_config import AlertConfig
from schemas.errors import UsageError

HTTP, HTTPS = "http://am.example:9093", "https://am.example:9093"
PAIR = {"alertmanager_username": "u", "alertmanager_password_env": "P"}


@pytest.mark.parametrize(
    ("urls", "keys"),
    [
        ((HTTPS,), PAIR),
        ((HTTPS,), {"alertmanager_token_env": "T"}),
        (("http://127.0.0.1:9093", "http://[::1]:9093", "http://localhost:9093"), PAIR),
        ((HTTP, HTTPS), {"alertmanager_cafile": "/ca.pem"}),
        ((), PAIR),
    ],
)
def test_what_is_allowed(urls, keys):
    assert AlertConfig(alertmanager=urls, **keys).alertmanager == urls


@pytest.mark.parametrize(
    ("urls", "keys", "said"),
    [
        ((HTTPS,), {"alertmanager_username": "u"}, "alertmanager_password_env is missing: alertmanager_username"),
        ((HTTPS,), {"alertmanager_password_env": "P"}, "alertmanager_username is missing: alertmanager_password_env"),
        ((HTTPS,), PAIR | {"alertmanager_token_env": "T"}, "are two logins; give one"),
        ((HTTPS,), {"alertmanager_username": "u", "alertmanager_token_env": "T"}, "are two logins; give one"),
        ((HTTPS, HTTP), PAIR, "http://am.example:9093 would get the secret in plain text; use https"),
        (("http://127.0.0.1.example",), {"alertmanager_token_env": "T"}, "in plain text"),
        ((HTTP,), {"alertmanager_cafile": "/ca.pem"}, "no Alertmanager's URL begins with https"),
        ((HTTPS,), {"alertmanager_username": "a:b", "alertmanager_password_env": "P"}, "is a name without :"),
        (("http://u:p@am:9093",), {}, "alertmanager is a list of"),
    ],
)
def test_what_is_refused(urls, keys, said):
    with pytest.raises(UsageError, match=said):
        AlertConfig(alertmanager=urls, **keys)


def test_a_secret_in_place_of_its_variable_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        AlertConfig(alertmanager=(HTTPS,), alertmanager_token_env="hunter 2")
    assert "hunter" not in str(caught.value)
