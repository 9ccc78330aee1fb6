"""TLS towards a server: a context that always verifies its certificate, and errors of OpenSSL in words."""

import ssl

from schemas.errors import UsageError


def verifying(name: str, authorities: str | None) -> ssl.SSLContext:
    """Return a client's context that accepts only certificates of the authorities in a PEM file, else of the system's.

    Raises:
        UsageError: the file is unreadable or holds no PEM; the sentence names it and the key `name`.
    """
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as e:
        raise UsageError(f"{name} {authorities}: {why(e)}") from None


def why(error: Exception) -> str:
    """Return why a PEM file could not be used."""
    if isinstance(error, ssl.SSLError):
        # OpenSSL's reason is a word like KEY_VALUES_MISMATCH, and often none.
        return (error.reason or "no PEM of what is wanted, or a wrong password").replace("_", " ").lower()
    return (getattr(error, "strerror", None) or str(error)).lower()
