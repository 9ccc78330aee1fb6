"""Commands to paste: a shell sees the words that were meant, and DuckDB the names, whatever a producer is called."""

import shlex

import duckdb
import pytest

from consumers.incidents.page_query import query, records_text
from consumers.verdict.verdict import Record

NAMES = ("web-7", "a'b", '$(touch x) `id` "', "a\\' or true --", "x;rm -rf ~", "a!b", "line\nbreak")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_one_word_of_the_shell_and_one_text_of_sql(name):
    record = Record("kmsg", name, "kmsg", name, 3, 9)
    program, verb, flag, lake, sql = shlex.split(query("/srv/my lake", record, name))
    assert (program, verb, flag, lake) == ("hypocenter", "query", "--lake", "/srv/my lake")
    connection = duckdb.connect()
    connection.execute("create table kmsg (machine text, boot_id text, surface text, instance text, seq bigint)")
    connection.execute("insert into kmsg select ?, ?, 'kmsg', ?, range from range(20)", [name] * 3)
    assert len(connection.execute(sql).fetchall()) == 7
    connection.close()


def test_nothing_is_left_to_the_shell_in_double_quotes():
    for name in NAMES:
        command = query("lake", Record("kmsg", name, "kmsg", "", 1, 2), "")
        if command[command.index("lake ") + 5] == '"':
            assert not set("$`\\!") & set(command)


@pytest.mark.parametrize(
    ("table", "column"), [("kmsg", "seq"), ("trace_kvm_exit", "page"), ("bpf_vcpu", "position"), ("x-y", "position")]
)
def test_positions_have_the_name_of_their_table(table, column):
    record = Record(table, "m", "s", "i", 5, 5)
    assert f"{column} between 5 and 5 order by {column}" in query("lake", record, "b")
    assert records_text(record, {"m": "short"}) == f"{table}, {column} 5 of s/i of short"
