"""Types that differ from kernel to kernel: Arrow's join and DuckDB's read of the same files agree, and so compaction."""

import itertools

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.lake import unify
from consumers.lake.audit import audit
from consumers.lake.compact import _digest, compact
from consumers.lake.tables import WORD
from consumers.lake.unify import WIDE, Source, columns_id, concatenated, folded, read_sql, union_sql, view_sql
from consumers.lake.writer import Batch, CommitWriter
from consumers.views import run_query
from schemas.errors import StorageError
from tests.consumers.lake._lakes import ARRIVAL_NS, batch, chain

VALUES = {
    "bool": pa.array([True, None], pa.bool_()),
    "i8": pa.array([-1, 2], pa.int8()),
    "u8": pa.array([1, 200], pa.uint8()),
    "i32": pa.array([-1, None], pa.int32()),
    "u32": pa.array([1, 2**32 - 1], pa.uint32()),
    "i64": pa.array([-(2**63), 2], pa.int64()),
    "u64": pa.array([None, 2**64 - 1], pa.uint64()),
    "wide": pa.array([1, None]).cast(WIDE),
    "word": pa.array(["a", None]).cast(WORD),
    "text": pa.array(["a", "'b'"]),
    "bytes": pa.array([b"a", b"\xff\0"]),
    "i32s": pa.array([[-1], None], pa.list_(pa.int32())),
    "u8s": pa.array([[], [2, 3]], pa.list_(pa.uint8())),
    "u64s": pa.array([[1], [2**64 - 1, 3]], pa.list_(pa.uint64())),
    "float": pa.array([3.0, 0.1], pa.float32()),
    "double": pa.array([3.0, -1e20], pa.float64()),
    "bools": pa.array([[True, None, False], None], pa.list_(pa.bool_())),
    "floats": pa.array([[0.1, float("inf")], []], pa.list_(pa.float32())),
    "doubles": pa.array([[3.0, float("-inf")], [1e-7]], pa.list_(pa.float64())),
    "chunks": pa.array([[b"a'\xff", b""], [None]], pa.list_(pa.binary())),
    "words": pa.array([["a, b", "[c]"], [""]], pa.list_(pa.string())),
    "rows": pa.array([[[1, 2], []], [None]], pa.list_(pa.list_(pa.int32()))),
    "flags": pa.array([[[True]], []], pa.list_(pa.list_(pa.bool_()))),
}


def both_ways(folder, *parts):
    """Return the joined table, and the rows by DuckDB over the parts, over the joined table, and their digests."""
    paths = [str(folder / f"{i} it's.parquet") for i in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        pq.write_table(part, path)
    joined = concatenated([pq.read_table(path, partitioning=None) for path in paths])
    pq.write_table(joined, folder / "joined.parquet")
    with duckdb.connect() as connection:
        rows = [
            connection.sql(f"from {union_sql(each)} order by n")
            for each in ([Source(path) for path in paths], [Source(str(folder / "joined.parquet"))])
        ]
        (columns, types, values), other = [(each.columns, each.types, each.fetchall()) for each in rows]
    assert (columns, types, values) == other
    assert _digest(paths) == _digest([str(folder / "joined.parquet")])
    return joined, values


def as_text(folder, column):
    """Return the column x of the view of the joined table, where most machines have `column`."""
    with duckdb.connect() as connection:
        sql = view_sql([Source(str(folder / "joined.parquet"), machines={"": 1, column: 2})])
        return [value for (value,) in connection.execute(f"select x from {sql} order by n").fetchall()]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(VALUES, VALUES)))
def test_every_pair_of_types_joins_alike_in_arrow_and_duckdb(tmp_path, one, other):
    parts = [pa.table({"n": [i, i + 1], "x": VALUES[name]}) for i, name in ((0, one), (2, other))]
    assert both_ways(tmp_path, *parts)[0].num_rows == 4


@pytest.mark.parametrize(
    ("kinds", "common"),
    [
        (["i8", "u8"], pa.int16()), (["i32", "u8"], pa.int32()), (["i8", "u32"], pa.int64()), (["u8", "u64"], pa.uint64()),
        (["i8", "u64"], WIDE), (["wide", "u8"], WIDE), (["bool", "i8"], pa.int8()), (["bool", "u32"], pa.uint32()),
        (["word", "text"], pa.string()), (["chunks", "words"], pa.string()), (["float", "double"], pa.float64()),
        (["i32s", "u8s"], pa.list_(pa.int32())), (["i32s", "u64s"], pa.list_(WIDE)), (["i8", "u8", "i64", "u64"], WIDE), (["word", "word"], WORD),
    ],
)  # fmt: skip
def test_the_common_type_loses_nothing(kinds, common):
    parts = [pa.table({"x": VALUES[name]}) for name in kinds]
    joined = concatenated(parts)
    assert joined["x"].type == common
    plain = [value for name in kinds for value in VALUES[name].to_pylist()]
    if common != pa.string():
        assert joined["x"].to_pylist() == plain
    assert joined["x"].null_count == plain.count(None)


def test_missing_columns_are_null_in_the_order_in_which_columns_first_came(tmp_path):
    front = pa.field("n", pa.int64(), nullable=False)
    first = pa.table({"n": [0], "b": [7]}, schema=pa.schema([front, pa.field("b", pa.int64(), nullable=False)]))
    joined, rows = both_ways(tmp_path, first, pa.table({"n": [1], "a": ["x"], 'B b"': [b"y"]}))
    assert joined.column_names == ["n", "b", "a", 'B b"']
    assert rows == [(0, 7, None, None), (1, None, "x", b"y")]


def test_names_that_differ_in_case_are_one_column(tmp_path):
    joined, rows = both_ways(tmp_path, pa.table({"n": [0], "cpu": [7]}), pa.table({"n": [1], "CPU": ["x"]}))
    assert joined.column_names == ["n", "cpu", "cpu:text"]
    assert rows == [(0, 7, None), (1, None, "x")]


def test_two_columns_of_one_file_whose_names_differ_in_case_stay_two(tmp_path):
    parts = [pa.table({"A": [1], "a": ["x"]}), pa.table({"a": [2], "A": ["y"]}), pa.table({"a": [3]})]
    found = concatenated(parts)
    assert found.column_names == ["A", "a"]
    assert found["A"].to_pylist() == [1, 2, 3]
    assert found["a"].to_pylist() == ["x", "y", None]
    assert concatenated([parts[2], parts[0]]).column_names == ["a", "a_"]
    assert concatenated([parts[0], parts[0]]).to_pylist() == 2 * parts[0].to_pylist()


def test_what_becomes_text_reads_the_same_by_both_ways(tmp_path):
    parts = [
        pa.table({"n": [2 * i, 2 * i + 1], "x": VALUES[name]}) for i, name in enumerate(("i8", "bytes", "u64s", "text"))
    ]
    joined, rows = both_ways(tmp_path, *parts)
    assert joined.column_names == ["n", "x", "x:bytes", "x:numbers", "x:text"]
    assert all(4 - row.count(None) == 1 for _, *row in rows)
    texts = ["-1", "2", "61", "ff00", "[1]", "[18446744073709551615, 3]", "a", "'b'"]
    assert folded(joined)["x"].to_pylist() == as_text(tmp_path, "x:text") == texts


def test_lists_floats_and_truths_have_one_text_each(tmp_path):
    names = ("bools", "bool", "float", "double", "floats", "chunks", "flags")
    parts = [pa.table({"n": [2 * i, 2 * i + 1], "x": VALUES[n]}) for i, n in enumerate(names)]
    joined, _ = both_ways(tmp_path, *parts)
    assert folded(joined)["x"].to_pylist() == as_text(tmp_path, "x:other") == [
        "[true, NULL, false]", None, "true", None, "3.0", "0.10000000149011612", "3.0", "-1e+20",
        "[0.10000000149011612, inf]", "[]", "[6127ff, '']", "[NULL]", "[[true]]", "[]",
    ]  # fmt: skip


def test_files_of_one_schema_are_read_as_they_are(tmp_path):
    for name in ("a", "b"):
        pq.write_table(pa.table({"x": VALUES["word"]}), tmp_path / f"{name}.parquet")
    sources = [Source(str(tmp_path / "a.parquet")), Source(str(tmp_path / "b.parquet"))]
    assert union_sql(sources) == read_sql(sources)
    with pytest.raises(StorageError, match="absent"):
        union_sql([Source(str(tmp_path / "absent"))])


def test_of_files_with_one_name_for_their_columns_only_one_is_opened(tmp_path):
    tables = [pa.table({"n": [0], "x": VALUES[name][:1]}) for name in ("i8", "word")]
    for i, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{i}.parquet")
    ids = [columns_id(table.schema) for table in tables]
    sources = [Source(str(tmp_path / f"{i}.parquet"), ids[i]) for i in (0, 1)]
    found = union_sql([*sources, Source("absent", ids[0])])
    assert "absent" in found
    assert ids[0] != ids[1] == columns_id(pa.schema([tables[1].schema[0], pa.field("x", pa.string(), nullable=False)]))


def test_files_whose_times_are_not_asked_for_are_not_opened(tmp_path):
    sources = []
    for i in range(unify._GROUPED_FILES_LEAST):
        low, high = 10 * i, 10 * i + 9
        pq.write_table(pa.table({"ts_ns": [low, high], "i": [i, i]}), tmp_path / f"{i}.parquet")
        sources.append(Source(str(tmp_path / f"{i}.parquet"), "same", (low, high)))
    with duckdb.connect() as connection:
        connection.execute(f"create view t as from {read_sql(sources[::-1])}")
        everything = connection.execute("select sum(i), count(*) from t").fetchone()
        assert everything == (2 * sum(range(len(sources))), 2 * len(sources))
        # A group's first file is opened for its columns; nobody sees that this one is none any more.
        (tmp_path / "1.parquet").write_bytes(b"")
        asked = "select i, count(*) from t where ts_ns >= {} and ts_ns < {} group by all order by 1"
        assert connection.execute(asked.format(55, 65)).fetchall() == [(5, 1), (6, 1)]
        with pytest.raises(duckdb.Error, match=r"1\.parquet"):
            connection.execute(asked.format(5, 65)).fetchall()
        one = f"select count(*) from {read_sql(sources[4:])}"
        assert "between" not in one and connection.execute(one).fetchone() == (2 * len(sources) - 8,)


LATER_NS = ARRIVAL_NS + 10**14


def trace_batch(start, values, machine="m"):
    front = {
        "machine": machine,
        "boot_id": "b",
        "layer": "host",
        "surface": "ftrace",
        "instance": "s/cpu0",
        "clock": "mono",
    }
    columns = {name: pa.array([text]).cast(WORD) for name, text in front.items()}
    numbers = {"cpu": pa.int32(), "page": pa.int64(), "position": pa.int32(), "ts_ns": pa.int64()}
    columns |= {name: pa.array([start], kind) for name, kind in numbers.items()}
    table = pa.table({**columns, "arrival_ns": pa.array([ARRIVAL_NS]), **values})
    plain = batch(start, start + 1)
    return Batch(start, start + 1, {"trace_e": table}, {}, plain.notes)


def test_an_hour_of_two_kernels_is_compacted_and_every_query_stays(storage):
    owner = chain(storage)
    rows = [
        {"flags": pa.array([1], pa.int32()), "x": pa.array([-1], pa.int64())},
        {"flags": pa.array(["A"]).cast(WORD), "x": pa.array([2**64 - 1], pa.uint64())},
        {"X": pa.array([b"\1\2"]), "y": pa.array([[1, 2]], pa.list_(pa.int32()))},
    ]
    for i, values in enumerate(rows):
        assert CommitWriter(storage).commit(owner, trace_batch(i, values))
    sql = "select page, flags, flags_text, x, x_text, y from trace_e order by page"
    before = run_query(storage, sql)[1]
    assert before == [
        (0, 1, None, -1, None, None),
        (1, None, "A", 2**64 - 1, None, None),
        (2, None, None, None, "0102", [1, 2]),
    ]
    assert compact(storage, LATER_NS).files_in == 3
    assert run_query(storage, sql)[1] == before
    report = audit(storage, deep=True)
    assert (report.rows, report.files) == ({"trace_e": 3}, 1)


def test_a_field_that_became_another_is_compacted(storage):
    owner, kinds = chain(storage), ("bools", "u32", "chunks", "float")
    for i, name in enumerate(kinds):
        assert CommitWriter(storage).commit(owner, trace_batch(i, {"armed": VALUES[name][:1]}))
    sql = "select page, armed, armed_text from trace_e order by page"
    before = run_query(storage, sql)[1]
    assert before == [(0, None, "[true, NULL, false]"), (1, 1, None), (2, None, "[6127ff, '']"), (3, None, "3.0")]
    assert compact(storage, LATER_NS).files_in == 4
    assert run_query(storage, sql)[1] == before


def of_many(start, values):
    """Return one batch with a row of three machines each."""
    made = [trace_batch(start, values, f"honest{i}") for i in range(3)]
    return made[0]._replace(tables={"trace_e": concatenated([each.tables["trace_e"] for each in made])})


@pytest.mark.parametrize("first", [True, False], ids=["the odd one first", "the odd ones last"])
def test_a_machine_makes_no_text_of_what_most_have_as_numbers_and_no_numbers_of_their_text(storage, first):
    owner = chain(storage)
    usual = {"prev_pid": pa.array([5], pa.int32()), "comm": pa.array(["sh"]).cast(WORD), "x_text": pa.array([7])}
    odd = {"prev_pid": pa.array(["5"]).cast(WORD), "comm": pa.array([8], pa.uint8()), "x": pa.array([b"\1"])}
    usual["x"] = pa.array([[1]], pa.list_(pa.int64()))
    # More files, more rows, and before all others.
    for i, many in enumerate([not first, not first, first, False, False, False]):
        made = of_many(i, usual) if many else trace_batch(i, odd, "odd")
        assert CommitWriter(storage).commit(owner, made)
    sums = (
        "select sum(prev_pid), count(*) filter (prev_pid = 5), count(*) filter (comm = 'sh'), max(x_text) from trace_e"
    )
    of_odd = "select distinct prev_pid, prev_pid_text, comm, x, x_text_ from trace_e where machine = 'odd'"
    of_usual = "select distinct prev_pid, prev_pid_text, comm, x, x_text_ from trace_e where machine <> 'odd'"
    machines = 3 * (1 if first else 2)
    for _ in range(2):
        assert run_query(storage, sums)[1] == [(5 * machines, machines, machines, 7)]
        assert run_query(storage, of_odd)[1] == [(None, "5", "8", None, "01")]
        assert run_query(storage, of_usual)[1] == [(5, None, "sh", [1], None)]
        assert compact(storage, LATER_NS).files_in in (6, 2)
        assert audit(storage, deep=True).files == 1
        assert CommitWriter(storage).commit(owner, trace_batch(owner.state.frontier, odd, "odd"))


def test_a_merged_file_that_has_text_already_makes_no_text_of_what_comes_then(storage):
    owner = chain(storage)
    for i, kind in enumerate((pa.string(), pa.int32())):
        assert CommitWriter(storage).commit(owner, trace_batch(i, {"pid_": pa.array([str(i)]).cast(kind)}))
    assert run_query(storage, "select page, pid_, pid__text from trace_e order by page")[1] == [
        (0, None, "0"),
        (1, 1, None),
    ]


def test_tables_whose_names_differ_in_case_are_one(storage):
    owner = chain(storage)
    for i, name in enumerate(("trace_E", "trace_e", "trace_E")):
        made = trace_batch(i, {"x": pa.array([i])})
        made = made._replace(tables={name: made.tables["trace_e"]})
        assert CommitWriter(storage).commit(owner, made)
    rows = [(0, 0), (1, 1), (2, 2)]
    assert run_query(storage, "select page, x from trace_E order by page")[1] == rows
    assert run_query(storage, "from (show tables) where name like 'trace_%' order by 1")[1] == [
        ("trace_e",),
        ("trace_unknown",),
    ]
    assert compact(storage, LATER_NS).files_out == 1
    assert run_query(storage, "select page, x from trace_e order by page")[1] == rows
    report = audit(storage, deep=True)
    assert report.rows == {"trace_e": 3}
    assert not any("table" in each for each in report.problems)
