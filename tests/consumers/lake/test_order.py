import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from consumers.lake import order
from consumers.lake.order import ordered

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
    assert ordered(found, KEYS).to_pylist() == by_arrow(found).to_pylist()


def files_of_a_ring(commits, pages, events):
    """Return what `commits` of two CPUs leave, each with the following pages of both, out of order between files."""
    parts = []
    for number in [*range(1, commits), 0]:
        page, position = np.arange(pages * events) // events + number * pages, np.arange(pages * events) % events
        one = {"machine": pa.array(["m"] * len(page)).dictionary_encode(), "page": page, "position": position}
        parts += [pa.table({**one, "cpu": np.full(len(page), cpu)}) for cpu in range(2)]
    return pa.concat_tables(parts).unify_dictionaries()


def test_long_pieces_are_not_copied(monkeypatch):
    monkeypatch.setattr(pc, "sort_indices", lambda *_, **__: pytest.fail("sorted"))
    found = ordered(files_of_a_ring(4, 100, 50), KEYS)
    assert found["page"].num_chunks == 8
    assert found["cpu"].to_pylist() == [0] * 20_000 + [1] * 20_000
    places = np.array(found["page"]) * 50 + np.array(found["position"])
    assert places.tolist() == [*range(20_000)] * 2


def test_pieces_that_lie_within_each_other_are_cut():
    late = pa.table({"key": [*range(1000), *range(5000, 6000), *range(2000, 4000)]})
    found = ordered(late, ["key"])
    assert found["key"].to_pylist() == sorted(late["key"].to_pylist())
    assert ordered(pa.table({"key": [*range(0, 8000, 2), 4001]}), ["key"])["key"].num_chunks == 3


def test_many_short_pieces_are_sorted():
    found = pa.table({"key": [*range(0, 10_000, 2), *range(1, 10_000, 2)]})
    assert order._pieces([np.array(found["key"])], 10_000) is None
    assert ordered(found, ["key"])["key"].to_pylist() == [*range(10_000)]


def test_rows_with_the_same_keys_stay_as_they_are():
    found = pa.table({"machine": pa.array(["m", "m", "m"]).dictionary_encode(), "row": [3, 1, 2]})
    assert ordered(found, ["machine"]) is found
