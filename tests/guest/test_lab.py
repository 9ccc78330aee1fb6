"""One CPU of a real guest stands still: what its kernel says of that and what its host knew, on one clock."""

import json
import re
import subprocess
import sys

import pytest

from tests.guest import _bundle, lab
from tests.guest._python import ROOT
from tests.producers.bpf import _bpf

pytestmark = [pytest.mark.guest, pytest.mark.kernel]
_STUCK = re.compile(r"soft lockup - CPU#1 stuck for (\d+)s!")


@pytest.fixture(scope="module")
def recorded(kernel, tmp_path_factory):
    _bpf.skip_unless_loadable()
    folder = tmp_path_factory.mktemp("lab")
    since_ns, until_ns = lab.watch_and_freeze(folder, _bundle.make(folder))
    return since_ns, until_ns, folder, lab.collect(folder)


@pytest.fixture(scope="module")
def told(recorded):
    since_ns, until_ns, _, lake = recorded
    words = ("timeline", "--lake", lake, "--vm", lab.NAME, *lab.window(since_ns, until_ns), "--format", "json")
    command = [sys.executable, "-m", "consumers.cli", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return since_ns, until_ns, json.loads(done.stdout)["rows"]


def of_surface(rows, surface):
    return [row for row in rows if row["surface"] == surface]


def test_the_guest_blames_itself_for_the_time_that_its_host_took(told):
    since_ns, until_ns, rows = told
    (row,) = [row for row in of_surface(rows, "kmsg") if _STUCK.search(row["text"])]
    stuck_s = int(_STUCK.search(row["text"])[1])
    at_ns, bound_ns = row["at_ns"], row["bound_ns"]
    # A bound of ms where the freeze took s; its watchdog runs within a second of the thaw, which is a second of its own.
    assert 0 < bound_ns < 500_000_000
    assert until_ns - bound_ns - 10**9 < at_ns < until_ns + bound_ns + 5 * 10**9
    assert at_ns - bound_ns - stuck_s * 10**9 < until_ns
    assert at_ns + bound_ns > since_ns


def test_its_host_saw_the_thread_stand_still_by_two_surfaces(told):
    since_ns, until_ns, rows = told
    sampled = [row for row in of_surface(rows, "vcpu-time") if "state t" in row["text"]]
    traced = [row for row in of_surface(rows, "bpf") if row["text"].startswith("vCPU 1 traced for ")]
    for found in (sampled, traced):
        assert found
        assert any(since_ns - 10**9 <= row["at_ns"] <= until_ns + 10**9 for row in found)
    assert {row["layer"] for row in sampled + traced} == {"host"}


def test_qemu_says_that_the_vm_ran_all_the_time(told):
    _, _, rows = told
    said = [row["text"] for row in of_surface(rows, "qmp")]
    assert any("running" in each for each in said)
    assert not any(word in each for each in said for word in ("STOP", "paused"))


@pytest.fixture(scope="module")
def verdicts(recorded):
    """What the verb says of the incident in the lake, without anything withheld and without the host."""

    def said(*words):
        command = [sys.executable, "-m", "consumers.cli", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    *_, folder, lake = recorded
    said("alert", "--log", folder / "guests", "--lake", lake, "--until-end", "--metrics", "off")
    sql = "select distinct incident_id as id from incidents where kind = 'soft_lockup'"
    (found,) = [json.loads(line) for line in said("query", "--lake", lake, sql, "--format", "json").splitlines()]
    words = ("verdict", "--lake", lake, "--incident", found["id"], "--format", "json")
    without = ("--withhold", "host", "--withhold", "virtual-platform")
    return json.loads(said(*words)), json.loads(said(*words, *without))


def test_the_verdict_is_the_pause_and_without_the_host_there_is_none(verdicts):
    whole, alone = verdicts
    assert (whole["owner"], whole["row"]) == ("vmm_pause", "C1"), whole
    assert {"vcpu_time"} <= {record["table"] for each in whole["evidence"] for record in each["records"]}
    assert "guest_kernel" in {each["owner"] for each in whole["rejected"]}
    assert (alone["owner"], alone["confidence"]) == ("undetermined", "none")
    assert alone["missing"]
