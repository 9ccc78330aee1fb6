"""Finding tracefs, and mounting it where it is not, in a mount namespace of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producers.ftrace import tracefs
from tests.producers.ftrace._ftrace import ROOT, TRACEFS

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def machine():
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        pytest.skip("needs root and tracefs")


def without_tracefs(code, *, become=""):
    """Run `code` where tracefs is not mounted; return what it printed."""
    script = f'umount -a -t tracefs && exec {become} "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_where_it_is_mounted():
    found = tracefs.attach()
    assert found.path == tracefs.mounted() == TRACEFS
    found.close()
    found.close()
    assert (TRACEFS / "instances").is_dir()


def test_where_it_is_not_mounted_it_is_for_this_process_alone():
    code = (
        "from producers.ftrace import tracefs; from pathlib import Path; f = tracefs.attach(); "
        "p = f.path / 'instances' / 'hypocenter-mount-1-99'; p.mkdir(); print((p / 'tracing_on').read_text()); p.rmdir(); "
        "print(tracefs.mounted(), (f.path / 'trace_clock').exists()); f.close(); print(f.path.exists())"
    )
    assert without_tracefs(code).split() == ["1", "None", "True", "False"]


def test_check_says_so():
    said = without_tracefs("from producers.ftrace import source; print(source.check())")
    assert "private mount" in said
    assert " mono," in said


def test_who_may_not_is_told_what_to_do():
    code = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from producers.ftrace import tracefs; from schemas.errors import AccessError\n"
        "try: tracefs.attach()\nexcept AccessError as e: print(e)"
    )
    assert "run as root" in without_tracefs("import producers.ftrace.tracefs, schemas.errors\n" + code)
    done = subprocess.run(
        [sys.executable, "-c", "import producers.ftrace.tracefs\n" + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "run as root" in done.stdout


def test_a_mount_of_a_part_or_of_something_else_is_none_of_ours(tmp_path, monkeypatch):
    info = tmp_path / "mountinfo"
    info.write_text(
        "25 1 0:23 / /proc rw,relatime shared:1 - proc proc rw\n"
        "30 25 0:12 /instances/x /mnt rw - tracefs nodev rw\n"
        "31 25 0:12 / /elsewhere rw shared:2 master:1 - tracefs nodev rw\n"
        "32 25 0:12 / /sys/kernel/debug/tracing rw - tracefs tracefs rw\n"
    )
    monkeypatch.setattr(tracefs, "_MOUNTS", info)
    assert tracefs.mounted() == Path("/sys/kernel/debug/tracing")
    info.write_text("")
    assert tracefs.mounted() is None
