import json

import pytest

from consumers.cli import main
from tests.consumers import _sample, _sample_clocks


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "lake"
    _sample.build(path, trace=True)
    return str(path)


def edges(capsys, *words):
    assert main(["clocks", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["edges"]


def test_every_edge_says_how_far_ahead_how_exactly_and_how_it_drifts(lake, capsys):
    found = {
        (each["from"]["machine"], each["to"]["clock"], each["to"]["machine"]): each
        for each in edges(capsys, "--lake", lake)
    }
    assert len(found) == 9
    own = _sample.HUNG.machine
    printk = found[own, "printk", own]
    assert abs(printk["ahead_ns"] - _sample_clocks.PRINTK_AHEAD_NS) <= printk["bound_ns"] < 2_000
    raw = found[own, "mono_raw", own]
    assert (printk["how"], raw["how"]) == ("perf-event", None)
    assert (raw["drift_ppm"], raw["grows_ppm"], raw["readings"], raw["steps"]) == (10.0, 500.0, 7, 0)
    tsc = found[own, "tsc", own]
    assert (tsc["hz"], raw["hz"], tsc["drift_ppm"]) == (_sample_clocks.TSC_HZ, None, 0.0)
    assert abs(tsc["ahead_ns"] - _sample_clocks.TSC_AHEAD_NS) <= tsc["bound_ns"] < 100
    host = found[own, "boot", _sample_clocks.HOST[0]]
    assert abs(host["ahead_ns"] - _sample_clocks.HOST_AHEAD_NS) <= host["bound_ns"] < 100_000
    assert all(each["age_s"] > 0 for each in found.values())


def test_the_beginning_of_an_id_and_a_guests_name_choose(lake, capsys):
    assert {each["from"]["machine"] for each in edges(capsys, "--lake", lake, "--machine", "b83e")} == {
        _sample.LOCKED.machine
    }
    guest = edges(capsys, "--lake", lake, "--vm", "web")
    assert {each["to"]["machine"] for each in guest} == {_sample.HUNG.machine, _sample_clocks.HOST[0]}


def test_the_table_is_for_people(lake, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert main(["clocks", "--lake", lake, "--vm", "web"]) == 0
    out = capsys.readouterr().out
    assert "9c4d1e6a boot" in out
    assert "86400.000005000" in out
    assert "printk by perf-event" in out
    assert "tsc at 2400.000 MHz" in out
    assert "(7 rows)" in out


def test_a_machine_that_is_not_there_is_answered_with_those_that_are(lake, capsys):
    for flag in ("--machine", "--vm"):
        assert main(["clocks", "--lake", lake, flag, "nope"]) == 2
        assert _sample.HUNG.machine in capsys.readouterr().err
