"""Queries over a lake; and the documents: every column is listed as it is, every statement gives the answer printed."""

import ast
import io
import re
import shlex
from pathlib import Path

import pytest

from consumers import render, views
from consumers.decode import registry
from consumers.lake.layout import open_lake
from consumers.lake.tables import TABLES
from consumers.views import connect, run_query
from schemas.errors import UsageError
from schemas.loss import LossKind
from tests.consumers import _sample, _sample_trace

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "consumers" / "TABLES.md").read_text()
DOCUMENTS = [path for path in ROOT.rglob("*.md") if not {".venv", ".cache", "var"} & set(path.relative_to(ROOT).parts)]
SPECS = {**TABLES, **{spec.name: spec for spec in registry.tables()}}
#: Of the family `trace_<event>`, those that the sample has.
EVENTS = {"trace_sched_switch", "trace_sched_waking", "trace_sys_enter", "trace_sys_exit", "trace_kernel_stack"}
#: And of the family `bpf_<program>`.
PROGRAMS = {"bpf_sched_delay"}
ALL = {*SPECS, *EVENTS, *PROGRAMS, *(f"{name}_by_time" for name in PROGRAMS)}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return _sample.build(tmp_path_factory.mktemp("sample") / "lake", trace=True, calls=True)


@pytest.fixture
def empty(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def described(name):
    """Return the cells of the rows that TABLES.md has for the table `name`."""
    section = re.search(rf"^## {re.escape(name)}: .*?(?=^## |^# )", DOCUMENT, re.DOTALL | re.MULTILINE)[0]
    table = re.search(r"\| column \| .*?\n\n", section, re.DOTALL)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("which", ["lake", "empty"])
def test_the_document_has_every_column_in_order_with_its_type(request, name, which):
    rows = described(name)
    _, columns = run_query(request.getfixturevalue(which), f"describe {name}")
    assert [row[:2] for row in rows] == [list(column[:2]) for column in columns]
    assert [row[0] for row in rows] == SPECS[name].schema.names
    assert all(len(row) == 5 and row[3] and row[4] for row in rows), "meaning and null meaning are missing"


def test_the_document_has_no_other_table_and_every_kind_of_loss():
    assert set(re.findall(r"^## (\w+): one row", DOCUMENT, re.MULTILINE)) == set(SPECS)
    kinds = re.search(r"\| kind \| reason .*?\n\n", DOCUMENT, re.DOTALL)[0]
    assert set(re.findall(r"^\| ([a-z-]+) \|", kinds, re.MULTILINE)) - {"kind"} == set(LossKind)


def written_reasons():
    for path in [*(ROOT / "producers").rglob("*.py"), *(ROOT / "consumers").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Loss":
                reason = node.args[3] if len(node.args) > 3 else None
                if isinstance(reason, ast.Constant):
                    yield reason.value


def test_the_document_has_every_reason_of_a_loss():
    kinds = re.search(r"\| kind \| reason .*?\n\n", DOCUMENT, re.DOTALL)[0]
    said = {word for cell in re.findall(r"^\| [a-z-]+ \| ([^|]+) \|", kinds, re.MULTILINE) for word in cell.split(", ")}
    written = set(written_reasons())
    assert len(written) > 10
    assert written <= said


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_an_event_has_the_columns_of_its_family_and_its_own_behind_them(lake, name):
    rows = described("trace_<event>")
    columns = [column[:2] for column in run_query(lake, f"describe {name}")[1]]
    assert [row[:2] for row in rows] == [list(column) for column in columns[: len(rows)]]
    assert all(len(row) == 5 and row[3] and row[4] for row in rows), "meaning and null meaning are missing"
    own = {
        "trace_sched_switch": "prev_comm prev_pid prev_prio prev_state prev_state_name next_comm next_pid next_prio",
        "trace_sched_waking": "comm event_pid prio target_cpu",
        "trace_kernel_stack": "size caller",
        "trace_sys_enter": "id args",
        "trace_sys_exit": "id ret",
    }
    assert [column for column, _ in columns[len(rows) :]] == own[name].split()
    never = " or ".join(f'"{row[0]}" is null' for row in rows if row[4] == "never")
    assert run_query(lake, f"select count(*) > 0, count(*) filter ({never}) from {name}")[1] == [(True, 0)]


def test_a_program_has_the_columns_of_its_family_its_own_and_the_surplus(lake):
    rows = described("bpf_<program>")
    columns = [column[:2] for column in run_query(lake, "describe bpf_sched_delay")[1]]
    assert [row[:2] for row in rows] == [list(column) for column in columns[: len(rows)]]
    assert all(len(row) == 5 and row[3] and row[4] for row in rows), "meaning and null meaning are missing"
    own = "cpu cause cause_name cpu_seq wait_ns pid tgid prev_pid prev_tgid comm prev_comm surplus"
    assert [column for column, _ in columns[len(rows) :]] == own.split()
    never = " or ".join(f'"{row[0]}" is null' for row in rows if row[4] == "never")
    assert run_query(lake, f"select count(*) > 0, count(*) filter ({never}) from bpf_sched_delay")[1] == [(True, 0)]


@pytest.mark.parametrize("name", SPECS)
def test_a_column_that_is_said_never_to_be_null_never_is(lake, name):
    never = [row[0] for row in described(name) if row[4] == "never"]
    nulls = ", ".join(f"count(*) filter ({column!r} is null)".replace("'", '"') for column in never)
    _, [counts] = run_query(lake, f"select {nulls} from {name}")
    assert dict(zip(never, counts, strict=True)) == dict.fromkeys(never, 0)
    assert run_query(lake, f"select count(*) > 0 from {name}")[1] == [(True,)]


def statements():
    for path in DOCUMENTS:
        for number, (sql, answer) in enumerate(
            re.findall(r"```sql\n(.*?)```\n(?:```text\n(.*?)```)?", path.read_text(), re.DOTALL)
        ):
            yield pytest.param(sql, answer, id=f"{path.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize(("sql", "answer"), list(statements()))
def test_a_statement_in_a_document_gives_the_answer_printed(lake, tmp_path, monkeypatch, sql, answer):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    Path("kallsyms").write_text(_sample_trace.KALLSYMS)
    out = io.StringIO()
    render.print_rows(*run_query(lake, sql), "table", out)
    assert "(0 rows)" not in out.getvalue()
    if answer:
        assert out.getvalue() == answer


def commands():
    for path in DOCUMENTS:
        text = path.read_text().replace("\\\n", " ")
        for number, command in enumerate(re.findall(r'hypocenter query [^`]*?"[^"]*"', text)):
            yield pytest.param(shlex.split(command)[-1], id=f"{path.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("sql", list(commands()))
def test_a_query_command_in_a_document_runs(lake, sql):
    if sql != "SQL":
        run_query(lake, sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "this text has 0"),
        ("-- nothing", "this text has 0"),
        ("select 1; select 2", "this text has 2"),
        ("create table x (a int)", "only reads the lake.*not create"),
        ("drop view kmsg", "not drop"),
        ("attach 'x.db'", "not attach"),
        ("set threads = 1", "not set"),
        ("selec 1", "syntax error at or near"),
        ("select seqq from kmsg", r'"seqq" not found[\s\S]*Candidate bindings: "seq"[\s\S]*describe kmsg'),
        ("select * from kmgs", r'Did you mean "kmsg"[\s\S]*show tables'),
        ("select seq from kmsg where captured_ns > '2026-03-02 09:00:00'", "times are whole ns: epoch_ns"),
        ("select seq from kmsg where captured_ns > '2026-03-02T09:00:00Z'", "times are whole ns: epoch_ns"),
        ("select seq from kmsg where captured_ns > timestamp '2026-03-02 09:00:00'", "times are whole ns: epoch_ns"),
        ("select seq from kmsg where captured_ns > now() - interval 1 hour", "times are whole ns: epoch_ns"),
        ("select * from read_csv('https://x.invalid/a')", "httpfs"),
    ],
)
def test_what_does_not_read_is_refused_in_one_readable_text(lake, sql, message):
    with pytest.raises(UsageError, match=message) as refused:
        run_query(lake, sql)
    assert "\n\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select 1", set()),
        ("select count(*) from KMSG", {"kmsg"}),
        ('select 1 from "losses", kmsg', {"losses", "kmsg"}),
        ("show tables", ALL),
        ("select * from duckdb_views()", ALL),
    ],
)
def test_a_statement_has_the_views_that_it_can_want(lake, sql, names):
    with connect(lake, sql=sql) as connection:
        assert {name for (name,) in connection.execute("show tables").fetchall()} == names


def test_records_of_a_ring_have_a_view_in_the_order_of_time(lake):
    begun = run_query(lake, "select ts_ns, position from bpf_sched_delay")[1]
    by_time = run_query(lake, "select ts_ns, position from bpf_sched_delay_by_time")[1]
    assert begun == sorted(begun, key=lambda row: row[1])
    assert by_time == sorted(begun) != begun
    listed = {name for (name,) in run_query(lake, "show tables")[1] if name.endswith("_by_time")}
    assert listed == {"bpf_sched_delay_by_time"}


def test_times_asked_for_find_the_same_rows(lake):
    [(low, high, count)] = run_query(lake, "select min(ts_ns), max(ts_ns), count(*) from kmsg")[1]
    assert run_query(lake, f"select count(*) from kmsg where ts_ns between {low} and {high}")[1] == [(count,)]


def test_an_answer_can_be_copied_to_a_file(lake, tmp_path):
    target = tmp_path / "out.parquet"
    run_query(lake, f"copy (select seq from kmsg where level <= 3) to '{target}'")
    assert run_query(lake, f"select count(*) from '{target}'")[1] == [(13,)]


def test_times_are_shown_in_utc_wherever_the_reader_sits(lake, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    sql = "select to_timestamp(0)::varchar, current_setting('TimeZone')"
    assert run_query(lake, sql)[1] == [("1970-01-01 00:00:00+00", "UTC")]


def test_only_what_commits_name_is_seen(lake):
    connection = connect(lake)
    views = {name for (name,) in connection.execute("show tables").fetchall()}
    connection.close()
    assert views == ALL
    before = run_query(lake, "select count(*) from kmsg")[1]
    file = next(Path(lake.local_path("data/kmsg")).rglob("*.parquet"))
    orphan = file.with_name("orphan.parquet")
    orphan.write_bytes(file.read_bytes())
    try:
        assert run_query(lake, "select count(*) from kmsg")[1] == before
    finally:
        orphan.unlink()


def test_rows_are_made_as_they_are_taken(monkeypatch):
    class Result:
        left, asked = 5, 0

        def fetchmany(self, count):
            self.asked += 1
            given = min(count, self.left)
            self.left -= given
            return [(self.left,)] * given

    monkeypatch.setattr(views, "_ROWS_AT_ONCE", 2)
    result = Result()
    rows = views._rows(result)
    next(rows)
    assert result.asked == 1
    assert len(list(rows)) == 4
