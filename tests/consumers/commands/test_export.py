import json
import os
import subprocess
import sys

import pytest

from tests.consumers import _sample
from tests.consumers.export import _trace


@pytest.fixture(scope="module")
def trace_lake(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "lake"
    _sample.build(path, trace=True)
    return path


def test_a_lake_with_one_boot_needs_no_flag(run, trace_lake, tmp_path):
    path = tmp_path / "a.pftrace"
    done = run("export", "perfetto", "--lake", trace_lake, "-o", path)
    assert done.code == 0
    assert done.lines == [
        f"{path}: 12 events, 1 loss, 0 kernel log records on 2 CPUs",
        f"machine {_sample.HUNG.machine}, boot {_sample.HUNG.boot_id}, clock mono: 0.040 s, {path.stat().st_size:,} bytes",
    ]
    assert done.err == ""
    assert {cpu: len(events) for cpu, events in _trace.events(_trace.read(path)).items()} == {0: 5, 1: 7}


def test_a_range_is_what_the_flags_say(run, trace_lake, tmp_path):
    path = tmp_path / "a.pftrace"
    words = "export", "perfetto", "--lake", trace_lake, "--output", path
    done = run(*words, "--since", "5400000000", "--until=5404032000", "--instance", "sched/cpu1")
    assert done.lines[0] == f"{path}: 2 events, 0 losses, 0 kernel log records on 1 CPU"
    done = run(*words, "--since", "2026-03-02T09:00:06", "--until", "2026-03-02T09:00:07")
    assert done.lines[0].startswith(f"{path}: 12 events")
    before = path.read_bytes()
    done = run(*words, "--until", "2026-03-02T09:00:06")
    assert (done.code, done.out) == (2, "")
    assert (
        "hypocenter: no trace event lies there: ts_ns are 5400010000 to 5440098000, and they came from 2026-"
        in done.err
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--machine", "zz"), "no trace event is of that; there are (machine, boot, set, clock): 5f0c"),
        (("--clock", "moon"), "no trace event is of that"),
    ],
)
def test_what_is_not_there_is_one_sentence(run, trace_lake, tmp_path, words, said):
    done = run("export", "perfetto", "--lake", trace_lake, "-o", tmp_path / "a", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_a_user_must_know_is_told_on_stderr(trace_lake, tmp_path):
    frames = [_sample._sample_trace.frames(_sample.HUNG, _sample.START_NS)]
    storage = _sample.open_lake(tmp_path / "lake", create=True)
    _sample._collect(storage, "hypocenter.trace", [(_sample.START_NS, each) for each in frames[0]], 1)
    command = [
        sys.executable,
        "-m",
        "consumers.cli",
        "export",
        "perfetto",
        "--lake",
        tmp_path / "lake",
        "-o",
        tmp_path / "a",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING"]
    assert lines[0]["message"].startswith("the lake has no reading of this boot's other clocks")


@pytest.mark.kernel
def test_a_full_disk_is_one_sentence_and_exit_74(run, trace_lake, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", mount], check=False).returncode
    ):
        pytest.skip("needs a file system of its own")
    try:
        (mount / "filler").write_bytes(b"x" * 4096)
        done = run("export", "perfetto", "--lake", trace_lake, "-o", mount / "a")
        assert (done.code, done.out) == (74, "")
        assert done.err == f"hypocenter: {mount / 'a'}: No space left on device\n"
        assert [each.name for each in mount.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", mount], check=True)
