"""Six numbers in memory: what a shipper enters its agent reads, also after the next shipper took over."""

import os
import subprocess
import sys

import pytest

from producers import ship_report
from producers.ship_report import ShipReport, Told


@pytest.fixture
def fd():
    made = ship_report.create()
    yield made
    os.close(made)


def test_nothing_happened_yet(fd):
    assert ship_report.read(fd) == Told(0, 0, 0, 0, 0, 0)


def test_what_is_told_is_what_was_entered(fd):
    report = ShipReport(fd)
    report.arrived(3, 100, 77)
    report.arrived(0, 0, 99)  # nothing did
    report.failed()
    report.failed(0)
    report.dropped(5)
    report.dropped(None)
    assert ship_report.read(fd) == Told()
    report.tell()
    assert ship_report.read(fd) == Told(3, 100, 1, 77, 5, 1)


def test_the_next_shipper_goes_on_with_the_numbers_of_the_last_one(fd):
    code = (
        "import sys; from producers.ship_report import ShipReport\n"
        "r = ShipReport(int(sys.argv[1])); r.arrived(2, 10, 50); r.failed(); r.tell()"
    )
    for n in (1, 2):
        subprocess.run(
            [sys.executable, "-c", code, str(fd)],
            check=True,
            pass_fds=(fd,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert ship_report.read(fd) == Told(2 * n, 10 * n, n, 50, 0, 0)


def test_a_shipper_that_nobody_watches_needs_no_descriptor():
    report = ShipReport(None)
    report.failed()
    report.tell()
