"""What befell several guests of one host at once is told by the table of incidents."""

import duckdb
import pytest

from consumers.clocks.graph import BOOT, Graph, Node
from consumers.coverage import Span
from consumers.timeline.scope import Scope
from consumers.verdict.facts import holds
from consumers.verdict.look import Look, There
from consumers.verdict.of_host import _many
from tests.consumers.verdict import _cases

S = 10**9


@pytest.mark.parametrize(
    ("machine", "host", "opened_s", "so"),
    [
        ("other", "host", 101, True),
        ("other", "host", 130, True),
        ("other", "host", 140, None),  # later than the length and ten seconds: none is no no
        ("other", "elsewhere", 101, None),
        ("guest", "host", 101, None),
    ],
)
def test_other_vms_of_the_host_count_when_theirs_opened_within_the_length(machine, host, opened_s, so):
    connection = duckdb.connect()
    connection.execute("create table incidents (incident_id varchar, machine varchar, host varchar, opened_ns bigint)")
    connection.execute("insert into incidents values ('a1', 'guest', 'host', ?)", [100 * S])
    connection.execute("insert into incidents values ('b2', ?, ?, ?)", [machine, host, opened_s * S])
    there = There(Node("host", "hb", BOOT), Span(0, 22 * S), 0)
    scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (), (), ())
    look = Look(
        connection, _cases.incident(), scope, Graph(), there.window, there, "", (), frozenset({"incidents"})
    )  # fmt: skip
    assert holds(_many(look, there)) is so
