"""TLS towards a broker: a context that always verifies its certificate."""

import ssl
from typing import NamedTuple

from schemas import tls
from schemas.errors import UsageError


class Files(NamedTuple):
    """PEM files by path, None for what there is not; `password` is that of an encrypted key."""

    authorities: str | None
    certificate: str | None
    key: str | None
    password: str | None


# kafka-python 3.0.12 drops what it has read when the end of the stream follows at once, as it does behind the broker's
# answer to a wrong password: then nobody learns why. So the end is only told to the next call.
class _Socket(ssl.SSLSocket):
    _read_before = False

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        data = super().recv(buflen, flags)
        end_follows_data = not data and self._read_before
        self._read_before = bool(data)
        if end_follows_data:
            raise ssl.SSLWantReadError
        return data


def context(files: Files, *, check_hostname: bool) -> ssl.SSLContext:
    """Return a client's context that accepts only certificates of the given authorities, else of the system's.

    Raises:
        UsageError: a file is unreadable, holds no PEM, or its key does not fit; the sentence names key and file.
    """
    made = tls.verifying("kafka.ssl_cafile", files.authorities)
    made.check_hostname = check_hostname
    made.sslsocket_class = _Socket
    if files.certificate is not None:
        # Without a password given, an encrypted key is an error and no question on the terminal.
        password = files.password or ""
        try:
            made.load_cert_chain(files.certificate, files.key, lambda: password)
        except (OSError, ValueError) as e:
            names = " and ".join(name for name in (files.certificate, files.key) if name)
            raise UsageError(f"kafka.ssl_certfile, kafka.ssl_keyfile: {names}: {tls.why(e)}") from None
    return made
