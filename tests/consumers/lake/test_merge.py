import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.decode import registry
from consumers.lake import merge
from consumers.lake.merge import merge_files
from consumers.lake.parquet import ROW_GROUP_ROWS, write_table
from consumers.lake.tables import WORD, TableSpec
from schemas.errors import DamagedError

KEYS = ("machine", "cpu", "page")


def spec_of(name, schema):
    words = tuple(field.name for field in schema if field.type == WORD)
    return TableSpec(name, schema, KEYS, words, ("page", "ts_ns"))


@pytest.fixture(autouse=True)
def any_table(monkeypatch):
    monkeypatch.setattr(registry, "spec_of", spec_of)


def write(path, machine, cpu, page, **columns):
    """Write a file of one machine with these rows; `ts_ns` tells each apart."""
    size = len(page)
    names = pa.array([f"{machine}-{number % 7}" for number in page]).cast(WORD)
    first = {
        "machine": pa.array([machine] * size).cast(WORD),
        "cpu": np.broadcast_to(np.int32(cpu), size),
        "page": page,
    }
    made = pa.table({**first, "ts_ns": np.asarray(page) * 10 + cpu, "name": names, **columns})
    write_table(made, spec_of("t", made.schema), path)
    return str(path)


def rows(*paths):
    """Return the rows of files as they lie."""
    return [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]


def counted_reads(monkeypatch):
    """Return what is read from now on: row groups, batch by batch, or whole files with all their columns."""
    reads = []
    batches, whole = pq.ParquetFile.iter_batches, pq.ParquetFile.read

    def iter_batches(file, size, row_groups):
        reads.append("group")
        return batches(file, size, row_groups=row_groups)

    def read(file, columns=None):
        reads.extend(() if columns else ("file",))
        return whole(file, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    monkeypatch.setattr(pq.ParquetFile, "read", read)
    return reads


def test_long_pieces_go_by_a_few_rows_at_a_time(tmp_path, monkeypatch):
    reads = counted_reads(monkeypatch)
    size, paths = 300_000, []
    for number, (machine, cpu) in enumerate([("b", 0), ("a", 1), ("a", 0), ("b", 0)]):
        page = np.arange(size) + number * size
        paths.append(write(tmp_path / f"{number}.parquet", machine, cpu, page))
    stats = merge_files(paths, "t", tmp_path / "all.parquet")
    assert reads == ["group"] * 4
    found = pq.read_table(tmp_path / "all.parquet", partitioning=None)
    expected = pa.concat_tables([pq.read_table(paths[n], partitioning=None) for n in (2, 1, 0, 3)])
    for name in expected.column_names:
        column = expected[name]
        assert found[name].cast(pa.string()).equals(column.cast(pa.string())), name
    assert (stats.rows, stats.min_ts_ns, stats.max_ts_ns) == (4 * size, 0, (4 * size - 1) * 10)
    meta = pq.ParquetFile(tmp_path / "all.parquet").metadata
    sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 4 * size - 2 * ROW_GROUP_ROWS]


def test_pieces_of_many_cpus_are_put_in_order_without_reading_a_row_group_for_each(tmp_path, monkeypatch):
    pages, cpus, paths = 10_000, 6, []
    for number in range(3):
        page = np.tile(np.arange(pages) + number * pages, cpus)
        paths.append(
            write(tmp_path / f"{number}.parquet", "a", np.repeat(np.arange(cpus, dtype=np.int32), pages), page)
        )
    reads = counted_reads(monkeypatch)
    monkeypatch.setattr(merge, "in_order", lambda *_: pytest.fail("sorted"))
    merge_files(paths, "t", tmp_path / "all.parquet")
    assert reads == ["file"] * 3
    found = pq.read_table(tmp_path / "all.parquet", partitioning=None)
    assert found["cpu"].to_pylist() == np.repeat(np.arange(cpus), 3 * pages).tolist()
    assert found["page"].to_pylist() == np.tile(np.arange(3 * pages), cpus).tolist()
    assert found["ts_ns"].to_pylist() == (np.asarray(found["page"]) * 10 + np.asarray(found["cpu"])).tolist()


def test_files_of_several_kernels_have_all_columns(tmp_path):
    one = write(tmp_path / "1.parquet", "b", 0, np.arange(20_000), prio=np.arange(20_000, dtype=np.int32))
    two = write(tmp_path / "2.parquet", "a", 0, np.arange(20_000), prio=np.arange(20_000), extra=["x"] * 20_000)
    merge_files([one, two], "t", tmp_path / "all.parquet")
    assert rows(tmp_path / "all.parquet") == [*rows(two), *({**row, "extra": None} for row in rows(one))]
    assert pq.read_schema(tmp_path / "all.parquet").field("prio").type == pa.int64()


def test_short_pieces_are_sorted(tmp_path):
    one = write(tmp_path / "1.parquet", "a", 0, np.arange(0, 1000, 2))
    two = write(tmp_path / "2.parquet", "a", 0, np.arange(1, 1000, 2))
    stats = merge_files([one, two], "t", tmp_path / "all.parquet")
    found = rows(tmp_path / "all.parquet")
    assert [row["page"] for row in found] == [*range(1000)]
    assert (stats.min_ts_ns, stats.max_ts_ns) == (0, 9990)
    assert sorted(map(str, found)) == sorted(map(str, rows(one, two)))


def test_a_piece_out_of_the_middle_of_a_row_group_is_itself(tmp_path):
    size = 100_000
    around = write(tmp_path / "1.parquet", "a", 0, np.concatenate([np.arange(size), np.arange(2 * size, 3 * size)]))
    middle = write(tmp_path / "2.parquet", "a", 0, np.arange(size, 2 * size))
    merge_files([around, middle], "t", tmp_path / "all.parquet")
    found = pq.read_table(tmp_path / "all.parquet", partitioning=None)
    assert found["page"].to_pylist() == [*range(3 * size)]
    assert found["ts_ns"].to_pylist() == [*range(0, 30 * size, 10)]
    assert found["name"].to_pylist() == [f"a-{number % 7}" for number in range(3 * size)]


@pytest.mark.parametrize(("size", "reads_of_each"), [(1, "file"), (5_000, "group")])
def test_of_many_files_one_is_open_at_a_time(tmp_path, monkeypatch, size, reads_of_each):
    pages = [number + (number % 2) for number in range(100)]  # 0, 2, 2, 4, ...: the second of two is the later one
    paths = [
        write(tmp_path / f"{n}.parquet", "a", n % 2, np.arange(size) + page * size) for n, page in enumerate(pages)
    ]
    reads = counted_reads(monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (sum(1 for _ in Path("/proc/self/fd").iterdir()) + 20, hard))
    try:
        stats = merge_files(paths, "t", tmp_path / "all.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert stats.rows == 100 * size
    assert reads == [reads_of_each] * 100
    found = pq.read_table(tmp_path / "all.parquet", partitioning=None)
    places = list(zip(found["cpu"].to_pylist(), found["page"].to_pylist(), strict=True))
    assert places == sorted(places)


@pytest.mark.parametrize("column", ["machine", "name"])
@pytest.mark.parametrize("size", [1_000, 40_000])
def test_a_damaged_source_is_named(tmp_path, size, column):
    paths = [write(tmp_path / f"{number}.parquet", "a", 0, np.arange(size) + number * size) for number in range(2)]
    group = pq.read_metadata(paths[1]).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    with Path(paths[1]).open("r+b") as file:
        file.seek(columns[column].data_page_offset)
        file.write(b"\xff" * 16)
    with pytest.raises(DamagedError, match=r"1\.parquet: "):
        merge_files(paths, "t", tmp_path / "all.parquet")


def test_a_source_that_is_no_parquet_file_is_named(tmp_path):
    (tmp_path / "1.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(DamagedError, match=r"1\.parquet: "):
        merge_files([str(tmp_path / "1.parquet")], "t", tmp_path / "all.parquet")
