"""The agent as one file, run by an interpreter that has nothing but its standard library."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from consumers.cli import main
from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.pipeline._processes import Running, children, kill_all
from tests.pipeline._relayed import Relayed
from tests.producers.bpf import _bpf
from tests.producers.conftest import kernel_log

__all__ = ["kernel_log"]
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "bundle" / "bundle.py"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "agent.pyz"
    subprocess.run([sys.executable, SCRIPT, path], check=True)
    return path


def command(bundle, *words):
    return [sys.executable, "-I", "-S", str(bundle), *map(str, words)]


def test_it_holds_the_agent_alone_and_the_same_source_gives_the_same_bytes(bundle, tmp_path):
    again = tmp_path / "again.pyz"
    done = subprocess.run([sys.executable, SCRIPT, again], capture_output=True, text=True, check=True)
    assert re.search(r"again\.pyz: \d+ KiB, \d+ BPF programs", done.stdout)
    assert again.read_bytes() == bundle.read_bytes()
    assert os.access(again, os.X_OK)
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    folders = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert folders == {"__main__.py", "schemas", "producers", "msgpack"}
    modules = {str(path.relative_to(ROOT)) for name in ("schemas", "producers") for path in (ROOT / name).rglob("*.py")}
    assert modules <= names
    assert {Path(name).suffix for name in names if name.startswith("producers/")} <= {".py", ".pyc", ".o", ".so"}
    # What of others is in it comes with its licence.
    assert any(re.fullmatch(r"msgpack-.*/licenses/.+", name) for name in names)


def test_it_knows_its_version_and_finds_nothing_that_is_installed(bundle):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = subprocess.run(command(bundle, "--version"), capture_output=True, text=True, check=True)
    assert done.stdout == f"hypocenter {version}\n"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from schemas import zstd, frame; import msgpack;"
        "print(zstd.zstandard, msgpack.Packer.__module__)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, bundle], capture_output=True, text=True, check=True)
    assert done.stdout == "None msgpack.fallback\n"


def test_a_broker_is_refused_because_it_has_no_client(bundle, tmp_path):
    words = ("run", "--kafka", "127.0.0.1:1", "--spool", tmp_path / "spool")
    done = subprocess.run(command(bundle, *words), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"hypocenter-agent: .*kafka-python.*is not installed.*\n", done.stderr)
    assert not (tmp_path / "spool").exists()


@pytest.mark.kernel
def test_every_surface_of_a_guest_reaches_the_lake(bundle, tmp_path, kernel_log):
    _bpf.skip_unless_loadable()
    log, lake = tmp_path / "log", tmp_path / "lake"
    surfaces = [f"--surface={name}" for name in ("kmsg", "ftrace", "bpf", "clocks", "procfs")]
    sources = ("--events", "sched:sched_switch", "--buffer-kib", "256", "--program", "sched-delay")
    agent = Running(tmp_path, command(bundle, "run", "--log", log, "--heartbeat-s", "0.2", *surfaces, *sources))
    agent.said("watching kmsg, ftrace, bpf, clocks, procfs")
    kernel_log.write(20)
    assert agent.stop() == 0, agent.story()
    assert main(["collect", "--log", str(log), "--lake", str(lake), "--until-end"]) == 0
    assert main(["audit", "--lake", str(lake), "--deep"]) == 0
    opened = open_lake(lake, create=False)
    ours = f"select count(*) from kmsg where message like '{kernel_log.tag}%'"
    assert run_query(opened, ours)[1] == [(20,)]
    for table in ("trace_sched_switch", "bpf_counts", "clock_readings", "procfs_text"):
        ((rows,),) = run_query(opened, f"select count(*) from {table}")[1]
        assert rows, table


@pytest.mark.kernel
def test_its_child_takes_it_through_a_relay_by_the_same_file(bundle, tmp_path, kernel_log):
    relayed = Relayed(tmp_path)
    guest = relayed.guest("web-1")
    try:
        relay = relayed.start()
        words = ("run", "--relay", guest.port.guest, "--spool", tmp_path / "spool", "--heartbeat-s", "0.2")
        agent = Running(tmp_path, command(bundle, *words))
        agent.said("relayed by the-host as web-1")
        (child,) = children(agent.pid)
        said = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        assert said[:5] == [*command(bundle), "--child=producers.relay.ship"]
        kernel_log.write(20)
        assert agent.stop() == 0, agent.story()
        assert relay.stop() == 0, relay.story()
        relayed.collect()
        count = f"select count(*) from kmsg where machine = 'web-1' and message like '{kernel_log.tag}%'"
        assert relayed.query(count) == [(20,)]
        assert json.loads(agent.err.splitlines()[-1])["message"].startswith("stopped after")
    finally:
        relayed.close()
        kill_all(tmp_path)
