"""Where metrics may be served: the loopback, unless an address is written out."""

import pytest

from schemas import metrics_address
from schemas.config import AgentConfig, CollectConfig
from schemas.errors import UsageError
from schemas.metrics_address import Address, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9500", ("127.0.0.1", 9500)),
        ("0", ("127.0.0.1", 0)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("0.0.0.0:9477", ("0.0.0.0", 9477)),
        ("10.0.0.7:9477", ("10.0.0.7", 9477)),
        ("[::1]:9477", ("::1", 9477)),
        ("[::]:9477", ("::", 9477)),
        ("off", None),
    ],
)
def test_what_is_taken(text, address):
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":9477", "*:9477", "127.0.0.1", "127.0.0.1:", "127.1:9477", "1.2.3.4.5:1", "host:9477", "::1:9477", "[::1]",
     "[127.0.0.1]:1", "[fe80::1%eth0]:1", "65536", "123456", "-1", "9477 ", "on", "http://127.0.0.1:9477", "٣"],
)  # fmt: skip
def test_what_is_not(text):
    with pytest.raises(ValueError, match="no address: "):
        parse(text)
    for cls in (AgentConfig, CollectConfig):
        with pytest.raises(
            UsageError, match=r"metrics is HOST:PORT with a numeric HOST, a PORT of 127.0.0.1, or off, not"
        ):
            cls(metrics=text)


def test_every_program_has_a_port_of_the_loopback_to_itself():
    programs = (metrics_address.AGENT, metrics_address.COLLECTOR, metrics_address.ALERT, metrics_address.RELAY)
    found = [parse(each) for each in programs]
    assert {each.host for each in found} == {"127.0.0.1"}
    assert len({each.port for each in found}) == len(programs)


def test_a_url_is_one_that_a_scraper_takes():
    assert Address("::1", 9).url == "http://[::1]:9/metrics"
    assert Address("127.0.0.1", 9).url == "http://127.0.0.1:9/metrics"
