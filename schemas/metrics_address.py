"""Where a program serves its metrics: one port of the loopback for each, unless an address is written out."""

import re
import socket
from typing import Final, NamedTuple

from schemas.bounds import Rule

AGENT: Final = "127.0.0.1:9477"
COLLECTOR: Final = "127.0.0.1:9478"
ALERT: Final = "127.0.0.1:9479"
RELAY: Final = "127.0.0.1:9480"
OFF: Final = "off"
LOOPBACK: Final = "127.0.0.1"
_TEXT: Final = re.compile(r"(?:(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):)?([0-9]{1,5})")


class Address(NamedTuple):
    """An address of this machine, as numbers; port 0 is any that is free."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a scraper asks."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"


def parse(text: str) -> Address | None:
    """Return the address that `text` names, None for `off`: HOST:PORT, or PORT alone, which is the loopback's.

    A host is numeric, because a name may be any interface's; `localhost` is 127.0.0.1.

    Raises:
        ValueError: it names none.
    """
    if text == OFF:
        return None
    found = _TEXT.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        raise ValueError(f"no address: {text}")
    v6, v4, port = found.groups()
    host = v6 or (LOOPBACK if v4 in (None, "localhost") else v4)
    try:
        socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, host)
    except OSError:
        raise ValueError(f"no address: {text}") from None
    return Address(host, int(port))


def rule() -> Rule:
    """Return the rule for a key that holds such an address."""
    return Rule(_allows, "HOST:PORT with a numeric HOST, a PORT of 127.0.0.1, or off")


def _allows(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
