"""Two real guests on one relay: one forges, floods and sends noise, and its clock is years ahead. The other is as ever."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from consumers.cli import main
from consumers.clock_graph import read_graph
from consumers.clocks.graph import Converted, Node
from consumers.lake.layout import open_lake
from consumers.views import connect
from producers import identity
from tests.guest import _bundle
from tests.guest._agent import PORT, PYTHON, GuestAgent, boot_id, log_records
from tests.guest._vm import Vm
from tests.pipeline._processes import AGENT, Running, kill_all
from tests.pipeline._relayed import Relayed

pytestmark = pytest.mark.guest
GOOD, BAD = "0a000000-3d4b-4e5f-8a6b-9c0d1e2f3a4b", "0b000000-3d4b-4e5f-8a6b-9c0d1e2f3a4b"
HOST = "the-host"
QUICK = "--heartbeat-s=0.5"
FLOOD_S = 5
RTC = "2031-05-06T07:08:09"


@pytest.fixture(scope="module")
def guests(kernel, tmp_path_factory):
    made = []
    for name, arguments in (("good", ()), ("bad", ("-rtc", f"base={RTC}"))):
        folder = tmp_path_factory.mktemp(name)
        made.append(Vm(folder, kernel, ports={PORT: folder / "port.sock"}, arguments=arguments, name=name))
    for vm in made:
        vm.booted().bundle = _bundle.make(vm.folder)
    yield made
    for vm in made:
        vm.close()


@pytest.fixture
def relayed(guests, tmp_path):
    made = Relayed(tmp_path)
    for vm, uuid in zip(guests, (GOOD, BAD), strict=True):
        made.guests.append(SimpleNamespace(flag=f"{vm.folder.name[:-1]}={vm.folder / 'port.sock'},uuid={uuid}"))
    yield made
    kill_all(tmp_path)


def test_a_guest_that_forges_floods_and_sends_noise_writes_under_its_own_name_and_costs_its_neighbour_nothing(
    guests, relayed
):
    good, bad = guests
    relay = relayed.start()
    agent = GuestAgent(good, "/run/good", "--surface=kmsg", QUICK)
    agent.said("relayed by the-host as good")
    script = Path(__file__).with_name("_forger.py")
    words = f"{PYTHON} -I -S {script} {bad.bundle} /dev/virtio-ports/{PORT} /run/forged {GOOD} {HOST} {FLOOD_S}"
    bad.run(f"{words} >/run/forger.said 2>&1 &")
    log_records(good, "neighbour", range(200))
    bad.run(
        "until grep -q . /run/forger.said; do sleep 0.2; done; cat /run/forger.said; grep -q ^forged /run/forger.said"
    )
    log_records(good, "after", range(40))
    assert agent.stop() == 0, agent.story()
    assert relay.stop() == 0, relay.story()
    relayed.collect()
    assert relayed.query("select count(*) > 1000 from kmsg where message like 'forged %'") == [(True,)]
    # The names in a frame count for nothing.
    assert relayed.query("select distinct machine, layer from kmsg where message like 'forged %'") == [
        (BAD, "guest-kernel")
    ]
    assert relayed.query(f"select count(*) from kmsg where machine = '{HOST}'") == [(0,)]
    texts = [f"{tag} {i}" for tag, count in (("neighbour", 200), ("after", 40)) for i in range(count)]
    own = relayed.query(f"select message from kmsg where machine = '{GOOD}' order by boot_id, seq")
    assert [text for (text,) in own if text.startswith(("neighbour ", "after "))] == texts
    assert relayed.query(f"select count(*) from losses where machine = '{GOOD}' and unit = 'position'") == [(0,)]
    accounts = "select max(mismatches), max(cardinality(refused)) from relay_guests where vm = '{}'"
    ((mismatches, refused),) = relayed.query(accounts.format("bad"))
    assert mismatches > 0
    assert refused > 0
    assert relayed.query(accounts.format("good")) == [(0, 0)]
    assert relayed.query("select distinct vm from relay_refused") == [("bad",)]
    assert relayed.query("select any_value(claimed_machine) from relay_guests where vm = 'bad' and frames > 0") == [
        (HOST,)
    ]


def test_a_guest_whose_clock_is_years_ahead_is_found_to_be_so_within_the_bound(guests, relayed):
    bad = guests[1]
    relay = relayed.start()
    host_log = relayed.folder / "host-log"
    words = ("--surface", "clocks", "--machine", HOST, "--heartbeat-s", "0.5", "--log", str(host_log))
    watcher = Running(relayed.folder, [*AGENT, "run", *words])
    relayed.running.append(watcher)
    agent = GuestAgent(bad, "/run/late", "--surface=clocks", QUICK)
    agent.said("relayed by the-host as bad")
    time.sleep(12)  # a reading of the clocks behind the first exchange of pings
    before_ns = time.time_ns()
    shown_ns = int(bad.run("date +%s%N"))
    after_ns = time.time_ns()
    time.sleep(12)
    guest_boot = boot_id(bad)
    for each in (agent, relay, watcher):
        assert each.stop() == 0, each.story()
    relayed.collect()
    assert main(["collect", "--log", str(host_log), "--lake", str(relayed.lake), "--until-end"]) == 0
    lake = open_lake(relayed.lake, create=False)
    graph = read_graph(connect(lake, sql="select * from clock_readings, clock_pings, coverage"))
    here = Node(HOST, identity.boot_id(), "realtime")
    found = graph.convert(shown_ns, Node(BAD, guest_boot, "realtime"), here)
    assert isinstance(found, Converted), found
    assert found.bound_ns < 10**9
    assert before_ns <= found.ts_ns + found.bound_ns
    assert found.ts_ns - found.bound_ns <= after_ns
    ahead_s = (shown_ns - found.ts_ns) / 1e9
    assert ahead_s > 3 * 365 * 86400
