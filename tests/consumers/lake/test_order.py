import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from consumers.lake.order import in_order, pieces

KEYS = ("machine", "cpu", "page", "position")


def table(rng, size, *, dictionary=True, nulls=False):
    """Return random rows in no order; `row` tells each apart."""
    machine = pa.array(rng.choice(["web1", "db", "", "ä"], size), mask=rng.random(size) < 0.2 if nulls else None)
    return pa.table(
        {
            "page": pa.array(rng.integers(-5, 50, size), mask=rng.random(size) < 0.2 if nulls else None),
            "machine": machine.dictionary_encode() if dictionary else machine,
            "cpu": pa.array(rng.integers(0, 3, size).astype(np.uint8)),
            "position": rng.permutation(size).astype(np.int32),
            "row": rng.permutation(size),
        }
    )


def by_arrow(found):
    """Return the same by Arrow's own sort, which takes no dictionary columns."""
    machine = found["machine"]
    plain = machine.cast(pa.string()) if pa.types.is_dictionary(machine.type) else machine
    keys = found.set_column(found.column_names.index("machine"), "machine", plain)
    return found.take(pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in KEYS]))


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 2, 500])
def test_it_is_the_order_of_arrows_own_sort(size, files, dictionary, nulls):
    rng = np.random.default_rng(size + files)
    parts = [table(rng, size, dictionary=dictionary, nulls=nulls) for _ in range(files)]
    found = pa.concat_tables(parts).unify_dictionaries()
    assert in_order(found, KEYS).to_pylist() == by_arrow(found).to_pylist()


def joined(found, of_pieces):
    """Return the rows of the pieces behind each other."""
    return pa.concat_tables([found.slice(first, end - first) for first, end in of_pieces])


def files_of_a_ring(commits, pages, events):
    """Return what `commits` of two CPUs leave, each with the following pages of both, the first one as the last."""
    parts = []
    for number in [*range(1, commits), 0]:
        page, position = np.arange(pages * events) // events + number * pages, np.arange(pages * events) % events
        one = {"machine": pa.array(["m"] * len(page)).dictionary_encode(), "page": page, "position": position}
        parts += [pa.table({**one, "cpu": np.full(len(page), cpu)}) for cpu in range(2)]
    return pa.concat_tables(parts).unify_dictionaries()


def test_files_of_a_ring_go_by_a_piece_for_each_file_and_cpu():
    found = files_of_a_ring(4, 300, 50)
    of_pieces = pieces(found[key] for key in KEYS)
    # The third file ends where the first CPU's last one begins.
    assert len(of_pieces) == 8
    assert joined(found, of_pieces).to_pylist() == by_arrow(found).to_pylist()


@pytest.mark.parametrize("seed", range(20))
def test_pieces_that_lie_within_each_other_are_cut(seed):
    rng = np.random.default_rng(seed)
    whole = np.sort(rng.integers(0, 50_000, 400_000))
    blocks = np.split(whole, np.sort(rng.integers(0, len(whole), 20)))
    file = rng.integers(0, 4, len(blocks))
    found = pa.table(
        {
            "key": np.concatenate(
                [block for _, block in sorted(zip(file, blocks, strict=True), key=lambda each: each[0])]
            )
        }
    )
    assert np.array_equal(joined(found, pieces([found["key"]]))["key"], whole)


def test_a_piece_within_another_one_cuts_it():
    within = pa.table({"key": [*range(10_000), *range(50_000, 70_000), *range(20_000, 40_000), 55_000]})
    assert joined(within, pieces([within["key"]]))["key"].to_pylist() == sorted(within["key"].to_pylist())


def test_many_short_pieces_are_to_be_sorted():
    found = pa.table({"key": [*range(0, 100_000, 2), *range(1, 100_000, 2)]})
    assert pieces([found["key"]]) is None
    assert in_order(found, ["key"])["key"].to_pylist() == [*range(100_000)]


def test_rows_with_the_same_keys_stay_as_they_are():
    found = pa.table({"machine": pa.array(["m", "m", "m"]).dictionary_encode(), "row": [3, 1, 2]})
    assert pieces([found["machine"]]) == [(0, 3)]
    assert in_order(found, ["machine"]) is found
    assert pieces([found["machine"].slice(0, 0)]) == []
