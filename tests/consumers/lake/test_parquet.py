"""What a file's columns are encoded as, and that both readers get the same values out of it."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.lake.parquet import ROW_GROUP_ROWS, write_table, write_tables
from consumers.lake.tables import WORD, TableSpec
from consumers.lake.unify import columns_id

INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
ROWS = ROW_GROUP_ROWS + 3


@pytest.fixture
def table():
    columns = {"machine": pa.array(["m"] * ROWS).cast(WORD), "ts_ns": pa.array(np.arange(ROWS) * 7 - 5)}
    for kind in INTEGERS:
        limits = np.iinfo(kind)
        values = np.resize(np.array([limits.min, limits.max, 1, 0], kind), ROWS)
        columns[np.dtype(kind).name] = pa.array(values, mask=np.arange(ROWS) % 5 == 4)
    return pa.table(columns)


@pytest.fixture
def spec(table):
    numbers = tuple(np.dtype(kind).name for kind in INTEGERS)
    return TableSpec("t", table.schema, ("machine", "ts_ns"), ("machine",), ("ts_ns",), numbers)


def test_numbers_of_every_width_and_sign_come_back_by_both_readers(tmp_path, table, spec):
    path = tmp_path / "a.parquet"
    stats = write_table(table, spec, path)
    assert pq.read_table(path, partitioning=None).cast(table.schema).equals(table)
    with duckdb.connect() as connection:
        found = connection.sql(f"from read_parquet('{path}')").to_arrow_table()
    for name in table.column_names:
        assert found[name].cast(pa.string()).equals(table[name].cast(pa.string())), name
    assert (stats.rows, stats.min_ts_ns, stats.max_ts_ns) == (ROWS, -5, 7 * (ROWS - 1) - 5)
    assert (stats.size_bytes, stats.columns) == (path.stat().st_size, columns_id(table.schema))


def test_each_column_is_encoded_as_the_table_says_and_has_ranges_where_they_find_rows(tmp_path, table, spec):
    write_table(table, spec, tmp_path / "a.parquet")
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in columns["ts_ns"].encodings
    assert "RLE_DICTIONARY" in columns["machine"].encodings
    for name in spec.split_columns:
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings
        assert columns[name].statistics is None
    assert (columns["ts_ns"].statistics.min, columns["machine"].statistics.max) == (-5, "m")


def test_what_is_written_for_good_has_the_same_rows_in_less_room(tmp_path):
    rng = np.random.default_rng(1)
    rows = ROW_GROUP_ROWS + 10
    words = np.array(["sleeping", "running"])[rng.integers(0, 2, rows)]
    table = pa.table({"ts_ns": np.cumsum(rng.integers(0, 50, rows)), "n": rng.geometric(0.3, rows), "word": words})
    spec = TableSpec("t", table.schema, ("ts_ns",), ("word",), ("ts_ns",), ("n",))
    fresh = write_table(table, spec, tmp_path / "fresh")
    halves = [table.slice(0, ROW_GROUP_ROWS), table.slice(ROW_GROUP_ROWS)]
    dense = write_tables(halves, table.schema, spec, tmp_path / "dense", dense=True)
    assert pq.read_table(tmp_path / "dense", partitioning=None).equals(table)
    assert dense.size_bytes < fresh.size_bytes
    assert dense._replace(size_bytes=0, sha256="") == fresh._replace(size_bytes=0, sha256="")
    groups = [pq.ParquetFile(tmp_path / name).metadata.num_row_groups for name in ("fresh", "dense")]
    assert groups == [2, 2]


def leaves(path):
    """Return by path the column chunks of all row groups, and whether each may be null."""
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    chunks = {}
    for group in groups:
        for i in range(group.num_columns):
            chunks.setdefault(group.column(i).path_in_schema, []).append(group.column(i))
    may_be_null = {
        file.schema.column(i).path: file.schema.column(i).max_definition_level > 0 for i in range(len(file.schema))
    }
    return chunks, may_be_null


NESTED = pa.table(
    {
        "word": pa.array(["a", "b"] * 500).cast(WORD),
        "some": pa.array(["a", None] * 500).cast(WORD),
        "ts_ns": pa.array(range(1000)),
        "page": pa.array([7] * 1000),
        "n": pa.array([1, 2] * 500, pa.int32()),
        "text": pa.array(["x" * 40, "y"] * 500),
        "lists": pa.array([[1, 2], []] * 500, pa.list_(pa.int32())),
        "map": pa.array([[("k", 1)], []] * 500, pa.map_(pa.string(), pa.int64())),
        "maps": pa.array([[[("k", 1)]], []] * 500, pa.list_(pa.map_(pa.string(), pa.int64()))),
        "struct": pa.array([{"a": 1, "b": ["x"]}] * 1000, pa.struct({"a": pa.int8(), "b": pa.list_(pa.string())})),
    }
)
NESTED_SPEC = TableSpec("t", NESTED.schema, ("ts_ns",), ("word", "some"), ("ts_ns", "page"), ("n",))


@pytest.mark.parametrize("dense", [False, True])
def test_every_column_is_compressed_also_within_lists_maps_and_structs(tmp_path, dense):
    write_tables([NESTED], NESTED.schema, NESTED_SPEC, tmp_path / "a", dense=dense)
    chunks, _ = leaves(tmp_path / "a")
    small = set() if dense else {"word", "some", "ts_ns", "page", "n"}
    assert {path: {each.compression for each in found} for path, found in chunks.items()} == {
        path: {"LZ4" if path in small else "ZSTD"} for path in chunks
    }
    assert len(chunks) == 13
    page = chunks["page"][0].encodings
    assert ("DELTA_BINARY_PACKED" in page) is dense and ("PLAIN" in page) is not dense
    assert pq.read_table(tmp_path / "a", partitioning=None).equals(NESTED)


def test_only_a_column_with_nulls_says_so_of_each_row(tmp_path):
    write_table(NESTED, NESTED_SPEC, tmp_path / "a")
    chunks, may_be_null = leaves(tmp_path / "a")
    plain = [path for path in chunks if "." not in path]
    assert {path for path in plain if may_be_null[path]} == {"some"}
    assert pq.read_table(tmp_path / "a", partitioning=None).cast(NESTED.schema).equals(NESTED)


def test_times_of_which_one_is_missing_have_no_span(tmp_path, spec):
    table = pa.table({"machine": pa.array(["m", "m"]).cast(WORD), "ts_ns": pa.array([1, None])})
    stats = write_table(table, spec, tmp_path / "a.parquet")
    assert (stats.min_ts_ns, stats.max_ts_ns) == (None, None)
