"""https and logins, in front of the real Alertmanager: who may be told, and one clear sentence for each mistake."""

import ssl

import pytest
import trustme

from consumers.alerts.access import OPEN, access
from consumers.alerts.outbox import Answer
from consumers.alerts.payload import postable
from consumers.alerts.post import Client
from schemas.alert_config import AlertConfig
from schemas.errors import UsageError
from tests.consumers.alerts._cases import Alertmanager, Receiver, S, alert

PASSWORD = "open sesame"
#: Of that password, by bcrypt.
HASHED = "$2b$04$yl9GC7detMeGEe8eNcpzOewKgvnv3zV7Ezxwwjt59kpKGrcjQAVDq"
BASIC = "Basic aHlwb2NlbnRlcjpvcGVuIHNlc2FtZQ=="


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """The real one by https with a certificate of a test's own authority, and a login."""
    folder, authority = tmp_path_factory.mktemp("secured"), trustme.CA()
    mine = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    web = f"tls_server_config:\n  cert_file: {folder}/cert.pem\n  key_file: {folder}/key.pem\n"
    web += f"basic_auth_users:\n  hypocenter: {HASHED}\n"
    trust = ssl.create_default_context(cafile=folder / "ca.pem")
    made = Alertmanager(folder, web=web, trust=trust, headers={"Authorization": BASIC})
    made.start()
    yield made, folder
    made.close()


def config(url, authority=None, **keys):
    return AlertConfig(alertmanager=(url,), alertmanager_cafile=None if authority is None else str(authority), **keys)


def login(name="hypocenter"):
    return {"alertmanager_username": name, "alertmanager_password_env": "AM_PASSWORD"}


def told(url, found):
    return Client(url, 5, access(found)).post([postable(alert(), 10**9 * S, 60 * S)])


def test_with_its_authority_and_the_password_it_is_told(secured, monkeypatch):
    alertmanager, folder = secured
    monkeypatch.setenv("AM_PASSWORD", PASSWORD)
    now = [postable(alert("through"), 4_000_000_000 * S, 60 * S)]
    client = Client(alertmanager.url, 5, access(config(alertmanager.url, folder / "ca.pem", **login())))
    assert client.post(now).answer is Answer.TAKEN
    assert "through" in {each["labels"]["incident_id"] for each in alertmanager.alerts()}


def test_a_certificate_of_another_authority_is_not_trusted(secured, monkeypatch):
    alertmanager, folder = secured
    monkeypatch.setenv("AM_PASSWORD", PASSWORD)
    for authority in (folder / "other-ca.pem", None):
        reply = told(alertmanager.url, config(alertmanager.url, authority, **login()))
        assert reply.answer is Answer.FAILED
        assert reply.why.startswith("its certificate is not trusted: ")


def test_a_certificate_of_another_name_is_not_trusted(secured):
    alertmanager, folder = secured
    url = alertmanager.url.replace("127.0.0.1", "localhost")
    reply = told(url, config(url, folder / "ca.pem"))
    assert reply.answer is Answer.FAILED
    assert "not trusted: Hostname mismatch" in reply.why


@pytest.mark.parametrize(("name", "password"), [("hypocenter", "wrong"), ("nobody", PASSWORD), (None, None)])
def test_a_wrong_login_or_none_is_one_sentence_without_the_secret(secured, monkeypatch, name, password):
    alertmanager, folder = secured
    keys = {}
    if name is not None:
        monkeypatch.setenv("AM_PASSWORD", password)
        keys = login(name)
    reply = told(alertmanager.url, config(alertmanager.url, folder / "ca.pem", **keys))
    assert reply.answer is Answer.FAILED
    assert reply.why.startswith("it refuses the login, or wants one: HTTP 401 Unauthorized")
    assert password is None or password not in reply.why


def test_plain_http_to_it_is_tried_again_and_says_what_it_is(secured):
    alertmanager, _ = secured
    reply = Client(alertmanager.url.replace("https", "http"), 5).post([])
    assert "HTTPS server" in reply.why


def test_https_to_one_without_it_is_said():
    with Receiver() as receiver:
        reply = Client(receiver.url.replace("http", "https"), 2).post([])
    assert reply.answer is Answer.FAILED
    assert reply.why.startswith("it does not speak TLS as it should: ")


def test_a_token_is_sent_as_such(monkeypatch):
    monkeypatch.setenv("AM_TOKEN", "abc.DEF-123")
    with Receiver() as receiver:
        assert told(receiver.url, config(receiver.url, alertmanager_token_env="AM_TOKEN")).answer is Answer.TAKEN
        assert Client(receiver.url, 5, OPEN).post([]).answer is Answer.TAKEN
    assert [each.get("Authorization") for each in receiver.headers] == ["Bearer abc.DEF-123", None]


def test_a_secret_that_is_not_there_or_cannot_be_one_is_said_at_the_start(monkeypatch):
    monkeypatch.delenv("AM_PASSWORD", raising=False)
    with pytest.raises(UsageError, match=r"alert.alertmanager_password_env names .* AM_PASSWORD, which is not set"):
        access(config("http://localhost:9093", **login()))
    for text in ("two words", "line\nbreak", "\u20ac"):
        monkeypatch.setenv("AM_TOKEN", text)
        with pytest.raises(UsageError, match="AM_TOKEN holds what no token can be"):
            access(config("http://localhost:9093", alertmanager_token_env="AM_TOKEN"))


def test_a_file_of_authorities_that_is_none_is_said(tmp_path):
    (tmp_path / "text.pem").write_text("no certificate\n")
    for name in ("text.pem", "none.pem"):
        with pytest.raises(UsageError, match=rf"alert\.alertmanager_cafile .*{name}: "):
            access(config("https://am:9093", tmp_path / name))
