import contextlib
import select
import socket
import ssl
import threading

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from schemas import kafka_tls
from schemas.errors import UsageError

NONE = kafka_tls.Files(None, None, None, None)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pem")
    mine = authority.issue_cert("client@example.org")
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    trustme.CA().issue_cert("other.example").private_key_pem.write_to_path(folder / "other-key.pem")
    (folder / "locked.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    )
    (folder / "text.pem").write_text("no certificate\n")
    return folder


@contextlib.contextmanager
def served(authority, talk, *, client_needed=False):
    """A TLS server for `localhost` on a thread: it shakes hands once, then calls `talk` with the connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    if client_needed:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)

    def serve():
        with contextlib.suppress(OSError):
            link, _ = listener.accept()
            with link, context.wrap_socket(link, server_side=True) as secured:
                talk(secured)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def shake_hands(client, port, name="localhost"):
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as link,
        client.wrap_socket(link, server_hostname=name) as made,
    ):
        return made.recv(100)


def greet(link):
    link.sendall(b"hello")


def test_a_broker_of_the_given_authority_is_trusted(authority, files):
    client = kafka_tls.context(NONE._replace(authorities=str(files / "ca.pem")), check_hostname=True)
    with served(authority, greet) as port:
        assert shake_hands(client, port) == b"hello"


@pytest.mark.parametrize("check_hostname", [True, False])
def test_a_broker_of_another_authority_never_is(authority, files, check_hostname):
    for client in (
        kafka_tls.context(NONE, check_hostname=check_hostname),
        kafka_tls.context(NONE._replace(authorities=str(files / "ca.pem")), check_hostname=check_hostname),
    ):
        with served(trustme.CA(), greet) as port, pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(client, port)


def test_a_certificate_of_another_host_is_refused_unless_that_is_not_checked(authority, files):
    trusted = NONE._replace(authorities=str(files / "ca.pem"))
    with served(authority, greet) as port, pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(kafka_tls.context(trusted, check_hostname=True), port, "broker.example")
    with served(authority, greet) as port:
        assert shake_hands(kafka_tls.context(trusted, check_hostname=False), port, "broker.example") == b"hello"


@pytest.mark.parametrize(("key", "password"), [("key.pem", None), ("locked.pem", "secret")])
def test_a_client_shows_its_own_certificate(authority, files, key, password):
    mine = kafka_tls.Files(str(files / "ca.pem"), str(files / "cert.pem"), str(files / key), password)
    with served(authority, greet, client_needed=True) as port:
        assert shake_hands(kafka_tls.context(mine, check_hostname=True), port) == b"hello"


@pytest.mark.parametrize(
    ("names", "password", "wanted"),
    [
        (("absent.pem", None, None), None, r"^kafka\.ssl_cafile \S+absent\.pem: no such file"),
        (("text.pem", None, None), None, r"^kafka\.ssl_cafile \S+text\.pem: no certificate"),
        ((None, "absent.pem", None), None, r"^kafka\.ssl_certfile, kafka\.ssl_keyfile: \S+absent\.pem: no such file"),
        ((None, "cert.pem", None), None, r"cert\.pem: no pem of what is wanted, or a wrong password$"),
        ((None, "cert.pem", "absent.pem"), None, r"cert\.pem and \S+absent\.pem: no such file"),
        ((None, "cert.pem", "other-key.pem"), None, "key values mismatch"),
        ((None, "cert.pem", "locked.pem"), None, r"locked\.pem: "),
        ((None, "cert.pem", "locked.pem"), "not it", r"locked\.pem: "),
        ((None, "cert.pem", "locked.pem"), "x" * 2000, r"locked\.pem: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, names, password, wanted):
    paths = [None if name is None else str(files / name) for name in names]
    with pytest.raises(UsageError, match=wanted) as caught:
        kafka_tls.context(kafka_tls.Files(*paths, password), check_hostname=True)
    assert "\n" not in str(caught.value)
    assert password is None or password not in str(caught.value)


def test_what_was_read_before_the_end_is_given_before_the_end(authority, files):
    client = kafka_tls.context(NONE._replace(authorities=str(files / "ca.pem")), check_hostname=True)
    with (
        served(authority, greet) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as link,
        client.wrap_socket(link, server_hostname="localhost") as made,
    ):
        assert made.recv(100) == b"hello"
        with pytest.raises(ssl.SSLWantReadError):
            made.recv(100)
        assert select.select([made], [], [], 5)[0]
        assert made.recv(100) == b""
