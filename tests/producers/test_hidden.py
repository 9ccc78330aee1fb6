"""What cannot be seen in /proc is said, by each surface that looks at processes, and is not taken for nothing."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from producers import hidden, procfs, topology, vcpu_time, vms
from producers.registry import Identity, Opening
from producers.vms import Finder
from schemas.config import Config

OPENING = Opening(Identity("m", "b", "host"), {}, Config())
SURFACES = [(topology, "VMs"), (vcpu_time, "VMs"), (procfs, "blocked tasks")]
CASES = pytest.mark.parametrize(("surface", "unseen"), SURFACES, ids=[each.SURFACE for each, _ in SURFACES])


def add(proc, pid, uid, text="1 (x) S"):
    (proc / pid).mkdir()
    (proc / pid / "stat").write_text(text)
    os.chown(proc / pid, uid, uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_processes_are_hidden_where_nothing_is_read_of_the_first_one_and_of_anothers(tmp_path):
    assert "hidepid" in hidden.why_hidden(tmp_path / "none")
    add(tmp_path, "7", os.geteuid())
    add(tmp_path, "8", 65534, "")
    assert "hidepid" in hidden.why_hidden(tmp_path)
    add(tmp_path, "9", 65534)
    assert hidden.why_hidden(tmp_path) is None


def test_the_first_process_is_enough_for_there_may_be_no_other_user(tmp_path):
    add(tmp_path, "1", os.geteuid())
    assert hidden.why_hidden(tmp_path) is None


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("option", "capability", "seen"),
    [("off", None, True), ("invisible", None, False), ("noaccess", None, False), ("invisible", "sys_ptrace", True)],
)
def test_the_kernel_hides_from_others_what_it_says(tmp_path, option, capability, seen):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    kept = "-all" + (f",+{capability}" if capability else "")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += [f"--bounding-set={kept}", f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    # Its text, because another user may not enter this checkout. A mount of its own: the options of ours are for all.
    code = Path(hidden.__file__).read_text() + "\nprint(why_hidden())"
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or pytest.skip("no Python for another user")
    mount = f"mount -t proc -o hidepid={option} proc /proc && exec "
    words = ["unshare", "-m", "sh", "-c", mount + shlex.join([*nobody, python, "-c", code])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == "None") == seen


@CASES
@pytest.mark.parametrize("reason", [None, "somebody hides them"], ids=["seen", "hidden"])
def test_a_surface_says_at_its_start_and_in_the_check_what_it_does_not_see(
    monkeypatch, caplog, surface, unseen, reason
):
    monkeypatch.setattr(hidden, "why_hidden", lambda: reason)
    monkeypatch.setattr(vms, "shared", Finder)
    monkeypatch.setattr(procfs, "numbers_are_the_kernels", lambda: True)
    for source in surface.open_sources(OPENING):
        source.close()
    said = f"{unseen} of other users are not seen: somebody hides them"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ([f"{surface.SURFACE}: {said}"] if reason else [])
    assert (said in surface.check()) == bool(reason)
