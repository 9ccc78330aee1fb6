"""Trace events of the real kernel into a lake: each once, and what is missing counted as the kernel itself counts it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.producers.ftrace._ftrace import TRACEFS, busy, instances

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]
EVENTS = "sched:sched_switch,sched:sched_waking"


@pytest.fixture(autouse=True)
def machine():
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        pytest.skip("needs root and tracefs")
    # One test at a time on this machine: an agent takes what another one left.
    lock = os.open(TRACEFS / "instances", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


class Pipe:
    """A log and a lake in `folder`, agents that are started and stopped, and questions about what became of it."""

    def __init__(self, folder):
        self.folder = folder
        self.agents = []

    def agent(self, *flags, crash_at=None):
        """Start an agent, which kills itself at the crash point `crash_at`, and wait until it watches."""
        err = self.folder / f"agent-{len(self.agents)}.err"
        command = [sys.executable, "-m", "producers.cli", "run", "--surface", "ftrace", "--events", EVENTS]
        command += ["--log", self.folder / "log", "--machine", "m", "--heartbeat-s", "0.5", *flags]
        environment = {key: value for key, value in os.environ.items() if key != "HYPOCENTER_CRASH_AT"}
        environment |= {"HYPOCENTER_CRASH_AT": crash_at} if crash_at else {}
        with err.open("wb") as file:
            running = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)
        self.agents.append(running)
        deadline_s = time.monotonic() + 20
        while b"watching" not in err.read_bytes():
            assert running.poll() is None, err.read_text()
            assert time.monotonic() < deadline_s, err.read_text()
            time.sleep(0.02)
        return running

    def run(self, *words):
        """Run a command of the collector's side and return what it printed; its exit code must be 0."""
        command = [sys.executable, "-m", "consumers.cli", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def collect(self):
        self.run("collect", "--log", self.folder / "log", "--lake", self.folder / "lake", "--until-end")

    def query(self, sql):
        return run_query(open_lake(self.folder / "lake", create=False), sql)[1]

    def books(self):
        """Prove that every book closes, and return those of the CPUs by instance."""
        report = json.loads(self.run("audit", "--lake", self.folder / "lake", "--deep", "--json"))
        return {book["name"].partition("ftrace/")[2].removesuffix("/mono"): book for book in report["books"]}

    def rows(self):
        """Return (rows, different places, first page, last page, different pages) of every CPU by instance."""
        names = [name for (name,) in self.query("show tables") if name.startswith("trace_")]
        every = " union all ".join(f"select instance, page, position from {name}" for name in names)
        what = "count(*), count(distinct (page, position)), min(page), max(page), count(distinct page)"
        return {name: counts for name, *counts in self.query(f"select instance, {what} from ({every}) group by all")}

    def counters(self):
        """Return the counters of every CPU's last heartbeat by instance."""
        sql = "select instance, arg_max(counters, (arrival_ns, number)) from coverage where instance like '%/cpu%' group by 1"
        return dict(self.query(sql))


@pytest.fixture
def pipe(tmp_path):
    made = Pipe(tmp_path)
    yield made
    for each in made.agents:
        each.kill()
        each.wait()
    if instances():  # of a test that failed: the next agent takes them away
        made.agent("--for", "1").wait(30)
    assert instances() == []


# The kernel may take back the only event of a page, as when recording ends: such a page has no row. On a busy machine
# that comes a few times; that no event is missing is told by their number.
EMPTY_MAX = 8


def assert_pages(book, low, high, pages):
    """Every page from 0 on is stored, or counted as lost; those stored have rows."""
    # Where the disk was slow, nothing may have been durable before the first agent died.
    assert book["first"] == 0 and low <= sum(book["lost"].values())
    assert book["next"] == book["stored"] + sum(book["lost"].values())
    assert book["next"] - EMPTY_MAX <= high + 1 <= book["next"]
    assert book["stored"] - EMPTY_MAX <= pages <= book["stored"]


# At a crash point it dies with pages that are read, and cut or appended, but not durable.
@pytest.mark.parametrize("crash_at", [None, "agent:cut:12", "log:written:6", "agent:durable:6"])
def test_events_of_a_killed_agent_and_of_the_next_are_there_once(pipe, crash_at):
    first = pipe.agent(crash_at=crash_at)
    load = threading.Thread(target=busy, args=(30_000,))
    load.start()
    if crash_at is None:
        time.sleep(0.7)
        first.kill()
    assert first.wait(20) == -signal.SIGKILL
    assert len(instances()) == 1
    pipe.collect()
    second = pipe.agent()
    load.join()
    busy(3_000)
    pipe.collect()
    second.terminate()
    assert second.wait(30) == 0
    assert instances() == []
    pipe.collect()
    books, rows, counters = pipe.books(), pipe.rows(), pipe.counters()
    assert set(rows) == {"default/cpu0", "default/cpu1"}
    lost = pipe.query(
        "select instance, kind, reason, unit, sum(count), count(*) filter (count is null) from losses group by all"
    )
    assert {(kind, reason) for _, kind, reason, *_ in lost} <= {("drop", "agent-died")}, lost
    for name, (events, places, low, high, pages) in rows.items():
        book, counted = books[name], counters[name]
        assert events == places == book["rows"]
        assert_pages(book, low, high, pages)
        assert counted["final"] == 1
        assert counted["left_over_entries"] == counted["entries"] == 0
        assert counted["left_over_overrun"] == counted["overrun"] == 0
        # All that the kernel ever handed out, less what died in the first agent's hands.
        read = counted["left_over_read_events"] + counted["read_events"]
        if not book["lost"] and not book["unknown_losses"]:
            assert events == read
        else:
            assert events < read
        # Four for each time that the pair wakes each other, where nothing else wanted the CPU.
        assert read > 2 * (30_000 + 3_000)
    assert pipe.query("select count(*) from dead_letters") == [(0,)]
    assert pipe.query("select count(distinct sha256) = 1 from artifacts") == [(True,)]


@pytest.fixture
def small_disk(pipe):
    path = pipe.folder / "log"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small tmpfs: {mounted.stderr!r}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_pages_that_a_full_disk_took_from_an_agent_that_was_stopped_are_counted_by_the_next(pipe, small_disk):
    first = pipe.agent()
    busy(3_000)
    time.sleep(1)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, (free.f_bavail - 1) * free.f_frsize)
    busy(30_000)
    time.sleep(0.5)
    first.terminate()
    assert first.wait(30) == 74
    said = (pipe.folder / "agent-0.err").read_text()
    assert "the log's disk refused the last frames" in said, said
    assert len(instances()) == 1
    ballast.unlink()
    second = pipe.agent()
    busy(3_000)
    second.terminate()
    assert second.wait(30) == 0
    assert instances() == []
    pipe.collect()
    books, rows, counters = pipe.books(), pipe.rows(), pipe.counters()
    for name, (events, places, low, high, pages) in rows.items():
        assert events == places == books[name]["rows"]
        assert_pages(books[name], low, high, pages)
        assert events < counters[name]["left_over_read_events"] + counters[name]["read_events"]
    assert all(book["lost"].get("drop", 0) > 0 for name, book in books.items() if "/cpu" in name), books
    assert set(pipe.query("select kind, reason, unit from losses where count is not null")) == {
        ("drop", "agent-died", "position")
    }


def test_what_a_slow_reader_lost_is_what_the_kernel_says(pipe):
    agent = pipe.agent("--buffer-kib", "64")
    busy(1_000)
    for _ in range(2):
        agent.send_signal(signal.SIGSTOP)
        busy(5_000)
        agent.send_signal(signal.SIGCONT)
        time.sleep(0.4)
    busy(1_000)
    agent.terminate()
    assert agent.wait(30) == 0
    assert instances() == []
    pipe.collect()
    books, rows, counters = pipe.books(), pipe.rows(), pipe.counters()
    for name, (events, places, low, high, pages) in rows.items():
        book, counted = books[name], counters[name]
        assert events == places == counted["read_events"] == book["rows"]
        assert_pages(book, low, high, pages)
        assert book["lost"] == {}
        assert (counted["final"], counted["entries"]) == (1, 0)
        assert counted["overrun"] > 0
        assert book["lost_events"] == counted["lost_events"]
        if counted["lost_unknown"] == 0:
            # Every event that was ever written: a row, or counted as lost.
            assert events + book["lost_events"] == counted["read_events"] + counted["overrun"]
        assert counted["lost_unknown"] == book["unknown_losses"]
    told = pipe.query("select distinct kind, reason, unit from losses")
    assert told == [("overwrite", "ring-overrun", "event")]


def test_the_other_commands_show_what_came(pipe):
    assert pipe.agent("--for", "1").wait(30) == 0
    assert instances() == []
    text = pipe.run("tail", "--log", pipe.folder / "log", "--surface", "ftrace", "--from-start", "--until-end")
    assert ": sched_switch: prev_comm=" in text
    pipe.collect()
    assert "every book closes" in pipe.run("audit", "--lake", pipe.folder / "lake")
    pipe.run("losses", "--lake", pipe.folder / "lake")
    shown = pipe.run("query", "--lake", pipe.folder / "lake", "show tables", "--format", "csv")
    assert {"trace_sched_switch", "artifacts"} <= set(shown.split())
    assert "default/cpu0" in pipe.run("status", "--lake", pipe.folder / "lake", "--json")
