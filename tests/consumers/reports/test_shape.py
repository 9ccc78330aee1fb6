import pytest

from consumers.reports.report import Shape
from consumers.reports.shape import CpuRow, classify


def row(ticks, nest, fqs, flags="....", cpu=0):
    return CpuRow(cpu, ticks, nest, fqs, flags)


@pytest.mark.parametrize(
    ("rows", "jiffies", "shape"),
    [
        ([row(5142, 1, 2584)], 5250, Shape.RAN),
        ([row(20999, 1, 5248, "...")], 21002, Shape.RAN),
        ([row(0, 0, 0, "...!")], 5252, Shape.NOTHING_RAN),
        ([row(4, 0, 4)], 5252, Shape.NOTHING_RAN),
        ([row(0, 1, 399, "...0")], 2002, Shape.SILENT),
        ([row(27, 1, 6895, "...0")], 15010, Shape.SILENT),
        ([row(4, 1, 2100, "...")], 5250, Shape.SILENT),  # before there was a fourth flag
        ([row(3100, 1, 2100)], 5250, Shape.IN_PART),
        ([row(3100, 0, 2100)], 5250, Shape.IN_PART),
        ([], 5250, Shape.NO_ROW),
        ([row(None, 1, 981, "...0")], 2002, Shape.NO_TICKS),
        # Every CPU there is, and nothing ran on any: not one of them is the culprit.
        ([row(1, 1, 0, cpu=0), row(2, 1, 0, cpu=1)], 5252, Shape.NOTHING_RAN),
        # What fits no class is none.
        ([row(4, 1, 2)], 5252, None),
        ([row(4, 0, 2100)], 5252, None),
        ([row(0, 1, 2100, "...!")], 5252, None),
        ([row(5142, 0, 2584)], 5250, None),
        ([row(5142, 1, 2584)], None, None),
    ],
)
def test_the_numbers_of_a_report_give_its_shape(rows, jiffies, shape):
    assert classify(rows, jiffies, 2) is shape


def test_ticks_all_along_without_forcing_need_a_starved_thread():
    rows = [row(2100, 1, 0)]
    assert classify(rows, 2100, 1) is None
    assert classify(rows, 2100, 1, starved=True) is Shape.RAN


def test_some_of_many_cpus_are_not_all():
    rows = [row(1, 1, 0, cpu=0), row(2, 1, 0, cpu=1)]
    assert classify(rows, 5252, 16) is None
