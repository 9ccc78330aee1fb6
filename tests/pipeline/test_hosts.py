"""The state surfaces of a host beside the kernel log, from one agent into a lake whose books close."""

import json
import os

import pytest

from consumers.lake.layout import open_lake
from consumers.views import run_query
from tests.pipeline._processes import AGENT, COLLECTOR, Running
from tests.producers._vms import fake_vm, until

pytestmark = pytest.mark.kernel
CONFIG = """
[agent]
surfaces = ["kmsg", "topology", "vcpu-time", "qmp", "procfs"]
heartbeat_s = 0.5

[vms]
scan_interval_s = 0.2
vcpu_interval_s = 0.1

[procfs]
interval_s = 0.3

[[vms.machines]]
name = "web"
qmp = "/nonexistent/qmp"
"""


def query(lake, sql):
    return run_query(open_lake(lake, create=False), sql)[1]


def test_a_host_is_watched_with_the_kernel_log_and_over_two_runs(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to read /dev/kmsg")
    (tmp_path / "a.toml").write_text(CONFIG)
    log, lake = tmp_path / "log", tmp_path / "lake"
    command = [*AGENT, "run", "--config", str(tmp_path / "a.toml"), "--log", str(log), "--machine", "m"]

    def collect():
        done = Running(tmp_path, [*COLLECTOR, "collect", "--log", str(log), "--lake", str(lake), "--until-end"])
        assert done.wait() == 0, done.story()

    with fake_vm("CPU 0/KVM", "CPU 1/KVM", command=("-name", "web")) as fake:
        for least in (3, 6):
            agent = Running(tmp_path, command)
            agent.said("watching kmsg, topology")

            def sampled(least=least):
                collect()
                sql = f"select count(*) from vcpu_time where pid = {fake.pid} and vcpu = 1"
                readings = query(lake, "select count(*) from procfs_hangs")
                return query(lake, sql)[0][0] >= least and readings[0][0] >= least

            until(sampled, 60)
            assert agent.stop() == 0, agent.story()
        collect()
    audit = Running(tmp_path, [*COLLECTOR, "audit", "--deep", "--json", "--lake", str(lake)])
    assert audit.wait() == 0, audit.story()
    books = {each["name"].split("/")[3]: each for each in json.loads(audit.out)["books"]}
    assert set(books) >= {"kmsg", "topology", "vcpu-time", "qmp", "procfs"}
    lost = "select surface, kind, reason, first_position, count from losses where surface <> 'kmsg'"
    assert query(lake, lost) == [], agent.story()
    assert [name for name, book in books.items() if book["lost"] and name != "kmsg"] == []
    wanted = "vcpu, state, run_ns >= lag(run_ns, 1, 0) over (partition by vcpu order by position)"
    seen = query(lake, f"select distinct {wanted} from vcpu_time where pid = {fake.pid} order by all")
    assert seen == [(0, "S", True), (1, "S", True)]
    assert query(lake, f"select distinct vm, vcpus from topology_vm where pid = {fake.pid}") == [("web", 2)]
    # Each run says once that the socket is not there, and claims to have watched nothing.
    assert query(lake, "select connected, detail from qmp_status") == [(False, "No such file or directory")] * 2
    assert query(lake, "select count(*) from coverage where surface = 'qmp'") == [(0,)]
    assert query(lake, "select count(*) > 0 from procfs_cpu where cpu is null and steal_ns >= 0") == [(True,)]
