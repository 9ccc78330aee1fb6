import dataclasses
from pathlib import Path

import pytest

from schemas import limits, toml_config
from schemas.config import AgentConfig, BpfConfig, BpfPinned, BpfProgram, CollectConfig, Config, LogConfig, TraceSet
from schemas.errors import UsageError
from schemas.frame import Frame, decode, encode
from schemas.stream import Layer, Stream

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def load(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    return toml_config.load(path, Config)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: path.name)
def test_a_deployed_file_loads_and_sends_nothing_in_the_clear(path):
    config = toml_config.load(path, Config)
    assert config.collect.lake is not None
    assert (config.log.dir is None) != (config.kafka is None)
    if config.kafka is not None:
        assert config.spool.dir is not None
        assert (config.kafka.security_protocol, config.kafka.ssl_check_hostname) == ("SASL_SSL", True)


def test_sets_of_trace_events_are_read(tmp_path):
    text = (
        "[ftrace]\ntick_ms = 100\n[[ftrace.sets]]\nevents = ['sched:*']\nfilters = ['sched:*=CPU > 1']\nclock = 'boot'\n"
        "[[ftrace.sets]]\nname = 'irq'\nevents = ['irq:*', 'timer:*']\nbuffer_kib_per_cpu = 1024\nsubbuf_kib = 64"
    )
    found = load(tmp_path, text).ftrace
    assert found.tick_ms == 100
    assert found.sets == (
        TraceSet("default", ("sched:*",), ("sched:*=CPU > 1",), clock="boot"),
        TraceSet("irq", ("irq:*", "timer:*"), (), 1024, 64),
    )


def test_programs_are_read(tmp_path):
    text = "[bpf]\ntick_ms = 100\n[[bpf.programs]]\nname = 'a'\nthreshold_us = 0\n[[bpf.programs]]\nname = 'b'\nring_kib = 64"
    found = load(tmp_path, text + "\nrecords = false").bpf
    assert found == BpfConfig((BpfProgram("a", 0), BpfProgram("b", None, 64, records=False)), 100)


def test_pinned_rings_are_read(tmp_path):
    text = "[[bpf.pinned]]\npath = 'shop'\nstruct = 'item'\n[[bpf.pinned]]\npath = '/sys/fs/bpf/a/shop'\nname = 'till'"
    found = load(tmp_path, text).bpf.pinned
    assert found == (BpfPinned("shop", None, "item"), BpfPinned("/sys/fs/bpf/a/shop", "till"))
    assert [str(each.pin) for each in found] == ["/sys/fs/bpf/shop", "/sys/fs/bpf/a/shop"]
    assert [each.named for each in found] == ["shop", "till"]


def test_there_is_a_deployed_file():
    assert (DEPLOY / "systemd" / "hypocenter.toml").exists()


def test_a_spool_keeps_its_own_defaults_when_one_key_is_given(tmp_path):
    spool = load(tmp_path, "[spool]\ndir = '/s'").spool
    assert spool == dataclasses.replace(Config().spool, dir=Path("/s"))
    assert (spool.retention_hours, spool.retention_bytes) == (None, 512 << 20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[agent]\nlinger_ms = -1", "agent.linger_ms is from 0 to 60 000 ms, not -1"),
        ("[agent]\nheartbeat_s = 0", "agent.heartbeat_s is "),
        ("[agent]\nheartbeat_s = nan", "agent.heartbeat_s is "),
        ("[agent]\nfor_s = -1.0", "agent.for_s is "),
        ("[agent]\nfor_s = inf", "agent.for_s is "),
        ("[agent]\nqueue_bytes_max = 0", "agent.queue_bytes_max is "),
        (
            "[agent]\nsurfaces = ['kmesg']",
            "agent.surfaces is a list of at least one of kmsg, ftrace, bpf, clocks, topology, vcpu-time, qmp, procfs, none",
        ),
        ("[agent]\nsurfaces = []", "agent.surfaces is "),
        ("[agent]\nsurfaces = ['kmsg', 'kmsg']", "agent.surfaces is "),
        ("[agent]\nlayer = 'kernel'", "agent.layer is one of guest-userspace, guest-kernel, "),
        ("[agent]\nmachine = ''", "agent.machine is "),
        ("[log]\nretention_bytes = 0", "log.retention_bytes is "),
        ("[log]\nsegment_bytes = -5", "log.segment_bytes is "),
        ("[spool]\nsegment_bytes = 0", "spool.segment_bytes is "),
        ("[spool]\nretention_hours = 0", "spool.retention_hours is "),
        ("[collect]\ncut_bytes = 0", "collect.cut_bytes is "),
        ("[collect]\ncut_rows = 0", "collect.cut_rows is "),
        ("[collect]\ncut_age_s = -0.1", "collect.cut_age_s is "),
        ("[collect]\ngroup = ''", "collect.group is "),
        ("[collect]\ngroup = 'a b'", "collect.group is "),
        ("[collect]\ngroup_instance = 'a/b'", "collect.group_instance is "),
        ("[collect]\ngroup_session_s = 1", "collect.group_session_s is "),
        ("[collect]\npartitions = ['hypocenter.log']", "collect.partitions is "),
        ("[collect]\npartitions = ['t:0', 't:0']", "collect.partitions is "),
        ("[collect]\ncompact = false\nretention_hours = 24", "collect.retention is a part of compact, which is off"),
        ("[collect]\nretention_hours = 0.5", "collect.retention_hours"),
        ("[collect]\nretention_bytes = 0", "collect.retention_bytes"),
        ("[collect]\ngroup = 'g'\npartitions = ['t:0']", "collect.partitions cannot be chosen where group shares them"),
        ("[kafka]\nbootstrap = 'host'", "kafka.bootstrap is HOST:PORT, or several with commas between, not 'host'"),
        ("[[ftrace.sets]]\nname = 'a'", "ftrace.sets[0].events is missing: name what the set a traces"),
        ("[[ftrace.sets]]\nevents = ['sched_switch']", 'ftrace.sets[0].events is a list of "system:event", none twice'),
        ("[[ftrace.sets]]\nevents = ['a:b', 'a:b']", "ftrace.sets[0].events is "),
        (
            "[[ftrace.sets]]\nevents = ['a:b']\nname = 'A-b'",
            "ftrace.sets[0].name is 1 to 32 small letters, digits or _",
        ),
        ("[[ftrace.sets]]\nevents = ['a:b']\nfilters = ['a:b']", "ftrace.sets[0].filters is "),
        ("[[ftrace.sets]]\nevents = ['a:b']\nsubbuf_kib = 5", "ftrace.sets[0].subbuf_kib is one of 4, 8, 16, 32, 64"),
        (
            "[[ftrace.sets]]\nevents = ['a:b']\nbuffer_kib_per_cpu = 1",
            "ftrace.sets[0].buffer_kib_per_cpu is from 64 to",
        ),
        ("[[ftrace.sets]]\nevents = ['a:b']\n[[ftrace.sets]]\nevents = ['a:c']", "ftrace.sets want a name each, none"),
        ("[[bpf.programs]]\nring_kib = 64", "bpf.programs[0].name is 1 to 32 small letters, digits or dashes, not ''"),
        ("[[bpf.programs]]\nname = '../x'", "bpf.programs[0].name is "),
        ("[[bpf.programs]]\nname = 'a'\nring_kib = 5", "bpf.programs[0].ring_kib is one of 4, 8, 16, "),
        ("[[bpf.programs]]\nname = 'a'\nthreshold_us = -1", "bpf.programs[0].threshold_us is from 0 to "),
        ("[[bpf.programs]]\nname = 'a'\n[[bpf.programs]]\nname = 'a'", "bpf.programs want a name each, none twice"),
        ("[[bpf.pinned]]\nstruct = 'x'", "bpf.pinned[0].path is the path of a pin, not ''"),
        ("[[bpf.pinned]]\npath = '/a/b/'", "bpf.pinned[0].path is the path of a pin"),
        ("[[bpf.pinned]]\npath = '/a/b.c'", "bpf.pinned[0].name is 1 to 64 letters, digits, dashes or _, not 'b.c'"),
        ("[[bpf.pinned]]\npath = 'a'\nstruct = 'struct a'", "bpf.pinned[0].struct is the name of a C struct"),
        (
            "[[bpf.pinned]]\npath = 'a/x'\n[[bpf.pinned]]\npath = 'b/x'",
            "bpf.pinned rings want a name each, none twice, not x, x",
        ),
        ("[bpf]\ntick_ms = 1", "bpf.tick_ms is from 10 to 60 000 ms"),
        ("[ftrace]\ntick_ms = 1", "ftrace.tick_ms is from 10 to 60 000 ms"),
        (
            "[kafka]\nbootstrap = 'host:1'\nsecurity_protocol = 'TLS'",
            "kafka.security_protocol is one of PLAINTEXT, SSL, ",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_at_load_by_its_key(tmp_path, text, wanted):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).removeprefix(f"{tmp_path / 'c.toml'}: ").startswith(wanted)


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (AgentConfig(), {"linger_ms": -1}),
        (AgentConfig(), {"for_s": 0.0}),
        (AgentConfig(), {"layer": "kernel"}),
        (LogConfig(), {"segment_bytes": 0}),
        (CollectConfig(), {"cut_rows": 0}),
        (CollectConfig(partitions=("t:0",)), {"group": "g"}),
    ],
)
def test_a_flag_that_overrides_a_key_is_held_to_the_same_bounds(config, flags):
    with pytest.raises(UsageError):
        dataclasses.replace(config, **flags)


@pytest.mark.parametrize("machine", ["m", "é" * 127, "x" * limits.TEXT_BYTES_MAX])
def test_a_machine_that_the_configuration_takes_fits_into_a_frame(machine):
    config = AgentConfig(machine=machine)
    for layer in Layer:
        stream = Stream(config.machine, "b", dataclasses.replace(config, layer=layer).layer, "kmsg", "", "printk")
        assert decode(encode(Frame(stream, "r", 0, 0, 0, 0, "kmsg", 1, bytes(4)))).stream == stream
