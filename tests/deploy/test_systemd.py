"""The units start commands that exist, with a configuration that loads and privileges that suffice."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from consumers.cli import parser as consumer_parser
from producers.cli import parser as producer_parser
from schemas import toml_config
from schemas.config import Config

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
README = (FOLDER / "README.md").read_text()
AGENT, COLLECTOR = "hypocenter-agent.service", "hypocenter-collector.service"
ALERTER, RELAY = "hypocenter-alerter.service", "hypocenter-relay.service"
DMESG_RESTRICT = Path("/proc/sys/kernel/dmesg_restrict")


def settings(name):
    """Return every `Key=value` of a unit, the values of each key in order."""
    found = {}
    for line in (FOLDER / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", [AGENT, COLLECTOR, ALERTER])
def test_exec_start_is_a_command_that_the_parser_takes(name):
    program, *words = settings(name)["ExecStart"][0].split()
    parse = {"hypocenter": consumer_parser, "hypocenter-agent": lambda _verb: producer_parser()}[Path(program).name]
    args = parse(words[0]).parse_args(words)
    assert args.config == Path("/etc/hypocenter/hypocenter.toml")


def test_the_relay_starts_with_a_configuration_that_loads_and_writes_where_it_may():
    unit = settings("hypocenter-relay.service")
    args = producer_parser().parse_args(unit["ExecStart"][0].split()[1:])
    assert (args.verb, args.config) == ("relay", Path("/etc/hypocenter/relay.toml"))
    config = toml_config.load(FOLDER / "relay.toml", Config)
    assert config.log.dir.parent == Path("/var/lib") / unit["StateDirectory"][0]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_DAC_OVERRIDE"]
    assert unit["KillMode"] == ["mixed"]


@pytest.mark.parametrize(("name", "verb"), [("collector", "collect"), ("alerter", "alert")])
def test_an_instance_reads_the_file_that_it_is_called_like(name, verb):
    _, command = settings(f"{name}-instance.conf")["ExecStart"]
    args = consumer_parser(verb).parse_args(command.replace("%i", "relay").split()[1:])
    assert (args.verb, args.config) == (verb, Path("/etc/hypocenter/relay.toml"))
    assert f"hypocenter-{name}@relay" in README


def test_what_reads_the_relays_log_shares_the_lake_and_no_port():
    host, relay = (toml_config.load(FOLDER / name, Config) for name in ("hypocenter.toml", "relay.toml"))
    assert relay.collect.lake == host.collect.lake
    assert relay.log.dir != host.log.dir
    assert relay.alert.alertmanager
    used = [each for one in (host, relay) for each in (one.collect.metrics, one.alert.metrics)]
    used += [host.agent.metrics, relay.relay.metrics]
    assert len(set(used)) == len(used)
    scraped = (FOLDER.parent / "prometheus" / "prometheus.yml").read_text()
    assert all(f'"{each}"' in scraped for each in used)


def test_a_relay_whose_guests_are_named_by_hand_starts():
    _, command = settings("guests.conf")["ExecStart"]
    args = producer_parser().parse_args(command.split()[1:])
    assert (args.verb, args.config) == ("relay", Path("/etc/hypocenter/relay.toml"))


@pytest.mark.parametrize("name", ["hypocenter.toml", "hypocenter-kafka.toml"])
def test_a_configuration_loads_and_names_all_that_both_services_need(name, monkeypatch):
    config = toml_config.load(FOLDER / name, Config)
    assert config.agent.surfaces == ("kmsg",)
    assert config.collect.lake is not None
    # An alerter that is enabled as shipped tells somebody.
    assert config.alert.alertmanager
    # Each machine that starts this file has a lake of its own, and a group would share the data out among them.
    assert config.collect.group is config.alert.group is None
    if config.kafka is None:
        assert config.log.dir is not None
    else:
        assert config.spool.dir is not None
        assert config.kafka.sasl_password_env in README


@pytest.mark.parametrize("name", ["hypocenter.toml", "hypocenter-kafka.toml"])
def test_every_directory_lies_where_the_units_may_write(name):
    config = toml_config.load(FOLDER / name, Config)
    state = Path("/var/lib") / settings(AGENT)["StateDirectory"][0]
    assert settings(COLLECTOR)["StateDirectory"] == settings(AGENT)["StateDirectory"]
    assert settings(COLLECTOR)["User"] == settings(AGENT)["User"]
    used = [path for path in (config.log.dir, config.spool.dir, config.collect.lake) if path is not None]
    assert all(path.parent == state for path in used)
    hidden = {AGENT: settings(AGENT)["InaccessiblePaths"], COLLECTOR: settings(COLLECTOR)["InaccessiblePaths"]}
    assert hidden == {AGENT: [f"-{config.collect.lake}"], COLLECTOR: [f"-{state}/spool"]}
    relay = toml_config.load(FOLDER / "relay.toml", Config)
    for name in (COLLECTOR, ALERTER):
        assert settings(name)["ReadOnlyPaths"] == [f"-{config.log.dir or state / 'log'} -{relay.log.dir}"]


@pytest.mark.parametrize("name", [AGENT, COLLECTOR])
def test_a_unit_writes_to_the_journal_and_waits_without_a_limit(name):
    unit = settings(name)
    assert unit["StandardOutput"] == unit["StandardError"] == ["journal"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["Restart"] == ["always"]
    assert "2" in unit["RestartPreventExitStatus"][0].split()
    assert int(unit["LogRateLimitBurst"][0]) <= 1000


def test_the_agent_is_stopped_before_what_it_started():
    assert settings(AGENT)["KillMode"] == ["mixed"]


def test_each_unit_has_only_the_capability_it_needs():
    assert settings(AGENT)["AmbientCapabilities"] == settings(AGENT)["CapabilityBoundingSet"] == ["CAP_SYSLOG"]
    assert settings(COLLECTOR)["CapabilityBoundingSet"] == [""]
    assert "AmbientCapabilities" not in settings(COLLECTOR)


def test_the_agent_sees_processes_of_others_only_with_its_drop_in():
    assert settings(AGENT)["ProtectProc"] == ["invisible"]
    assert settings("host.conf")["ProtectProc"] == ["default"]
    assert settings("qmp.conf")["AmbientCapabilities"] == settings("qmp.conf")["CapabilityBoundingSet"]


def test_the_collector_may_compile_and_keep_the_loops_over_trace_pages():
    unit = settings(COLLECTOR)
    assert "MemoryDenyWriteExecute" not in unit
    assert unit["Environment"] == [f"NUMBA_CACHE_DIR=%C/{unit['CacheDirectory'][0]}"]


def test_the_readme_names_every_file():
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in README


def written(path, *names):
    """Write these files as one unit; the programs lie where nobody has installed them yet."""
    text = "\n".join((FOLDER / each).read_text() for each in names if each)
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    return path


def verify(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("name", ["collector", "alerter", "relay"])
def test_systemd_finds_nothing_wrong_with_an_instance_and_with_guests_by_hand(tmp_path, name):
    instance = name != "relay"
    path = tmp_path / f"hypocenter-{name}{'@' if instance else ''}.service"
    drop_in = f"{name}-instance.conf" if instance else "guests.conf"
    written(path, f"hypocenter-{name}.service", drop_in)
    verify(path.with_name(path.name.replace("@", "@relay")) if instance else path)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize(
    ("name", "drop_in"),
    [
        *((AGENT, each) for each in (None, "trace-events.conf", "bpf.conf", "clocks.conf", "host.conf", "qmp.conf")),
        *((each, None) for each in (COLLECTOR, ALERTER, RELAY)),
    ],
    ids=lambda each: each or "alone",
)
def test_systemd_finds_nothing_wrong_and_the_exposure_that_the_readme_states(tmp_path, name, drop_in):
    unit = written(tmp_path / name, name, drop_in)
    verify(unit)
    command = ["systemd-analyze", "security", "--offline=yes", unit]
    report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    exposure = float(re.search(r"exposure level for \S+: (\d+\.\d+)", report)[1])
    row = f"{name} with `{drop_in}`" if drop_in else name
    stated = float(re.search(rf"^\| {re.escape(row)} \| (\d+\.\d+) ", README, re.MULTILINE)[1])
    # Versions weigh differently; a setting that was dropped shows.
    assert abs(exposure - stated) <= 0.3


@pytest.fixture
def dmesg_restrict():
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    before = DMESG_RESTRICT.read_text()
    DMESG_RESTRICT.write_text("1\n")
    yield
    DMESG_RESTRICT.write_text(before)


# Unlike pytest's own, one that another user may enter.
@pytest.fixture
def anyones_dir():
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        yield Path(path)


@pytest.mark.kernel
@pytest.mark.parametrize(("capability", "code"), [("dac_override", 0), ("syslog", 77), ("dac_read_search", 77)])
def test_the_capability_of_the_drop_in_opens_tracefs_and_less_does_not(anyones_dir, capability, code):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    entered = subprocess.run(
        [*nobody, sys.executable, "-c", "import producers.cli"], cwd=FOLDER.parents[1], check=False
    )
    if entered.returncode:
        pytest.xfail("another user may not enter this checkout")
    (granted,) = settings("trace-events.conf")["AmbientCapabilities"]
    assert settings("trace-events.conf")["CapabilityBoundingSet"] == [granted]
    assert (code == 0) == (granted == f"CAP_{capability.upper()}")
    allowed = f"-all,+{capability}"
    program = [sys.executable, "-m", "producers.cli", "run", "--surface", "ftrace"]
    command = [
        *nobody,
        *(f"--bounding-set={allowed}", f"--inh-caps={allowed}", f"--ambient-caps={allowed}"),
        *(*program, "--events", "sched:sched_switch", "--log", anyones_dir / "log", "--for", "1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parents[1])
    assert done.returncode == code, done.stderr
    assert ("no instance can be made" in done.stderr) == (code == 77)


# The owner of the node is somebody else, so that only its mode and the capabilities count.
@pytest.mark.kernel
@pytest.mark.parametrize(
    ("mode", "capabilities", "said"),
    [
        (0o644, ["CAP_SYSLOG"], "open"),
        (0o644, [], "CAP_SYSLOG"),
        (0o644, ["CAP_DAC_READ_SEARCH"], "CAP_SYSLOG"),
        (0o600, ["CAP_SYSLOG"], "CAP_DAC_READ_SEARCH"),
        (0o600, ["CAP_SYSLOG", "CAP_DAC_READ_SEARCH"], "open"),
    ],
)
def test_the_capabilities_open_the_kernel_log_or_the_message_names_the_one_missing(
    dmesg_restrict, tmp_path, mode, capabilities, said
):
    device = tmp_path / "kmsg"
    os.mknod(device, 0o020000 | mode, os.makedev(1, 11))
    device.chmod(mode)
    os.chown(device, 65534, 65534)
    code = (
        "import sys; from producers.kmsg import open_device; from schemas.errors import AccessError\n"
        "try: open_device(sys.argv[1]); print('open')\n"
        "except AccessError as e: print(e)\n"
    )
    allowed = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
    command = ["setpriv", f"--bounding-set={allowed}", "--inh-caps=-all", sys.executable, "-c", code, device]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER.parents[1])
    assert said in done.stdout
