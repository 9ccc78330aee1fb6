"""The command line of `hypocenter-agent`: help, typos, what `check` says, exit codes, and what a run leaves behind."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from consumers.transport.log import DirectoryReader
from producers import cli, kmsg
from producers.ftrace import tracefs
from producers.identity import boot_id, kernel_layer, machine_id
from schemas import errors
from schemas.errors import AccessError
from schemas.frame import decode
from tests._logs import write

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def usage(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return stopped.value.code, capsys.readouterr()


def agent(*words, **kwargs):
    command = [sys.executable, "-m", "producers.cli", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**ENVIRONMENT, **kwargs}, timeout=60
    )


@pytest.fixture
def readable():
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("needs root and a readable /dev/kmsg")


def test_help_names_verbs_and_every_exit_code(capsys):
    code, (out, err) = usage(["--help"], capsys)
    assert (code, err) == (0, "")
    assert "\n    run " in out
    assert "\n    check " in out
    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type)} - {65}
    assert all(f"\n  {code} " in out for code in codes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: VERB"),
        (["rnu"], "VERB: there is no rnu; did you mean run?"),
        (["run", "--surface", "kmgs"], "--surface: there is no kmgs; did you mean kmsg?"),
        (["run", "--surface", "kmsg,ftrace"], "--surface: there is no kmsg,ftrace; "),
        (["run", "--surfac", "kmsg"], "there is no flag --surfac; did you mean --surface?"),
        (["run", "--log", "x", "--kafka", "h:1"], "argument --kafka: not allowed with argument --log"),
        (["run", "--for", "soon"], "argument --for: invalid float value: 'soon'"),
    ],
)
def test_a_wrong_command_line_is_exit_2_on_stderr(words, said, capsys):
    code, (out, err) = usage(words, capsys)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "where to? give --log DIR, --kafka HOST:PORT"),
        (["--log", "LOG", "--layer", "gest"], "layer is one of guest-userspace, guest-kernel"),
        (["--log", "LOG", "--heartbeat-s", "0"], "heartbeat_s is from 0.1 to"),
        (["--log", "LOG", "--linger-ms", "-1"], "linger_ms is from 0 to"),
        (["--log", "LOG", "--for", "-1"], "for_s is from 0.001 to"),
        (["--log", "LOG", "--machine", ""], "machine is a text of 1 to"),
        (["--log", "LOG", "--program", "sched-delay"], "read from the surface bpf: give --surface bpf"),
        (["--log", "LOG", "--surface", "bpf", "--program", "Sched"], "name is 1 to 32 small letters, digits or dashes"),
        (["--log", "LOG", "--pinned", "x"], "a --pinned is read from the surface bpf: give --surface bpf"),
        (
            ["--log", "LOG", "--surface", "bpf", "--struct", "x"],
            "--struct says what a record of --pinned is: give --pinned",
        ),
        (["--log", "LOG", "--surface", "bpf", "--pinned", "a/b,c/b"], "pinned rings want a name each, none twice"),
        (["--log", "LOG", "--qmp", "a=/b"], "read from the surface qmp: give --surface qmp"),
        (["--log", "LOG", "--surface", "qmp", "--qmp", "a"], "--qmp is NAME=SOCKET, not 'a'"),
        (["--log", "LOG", "--spool", "x"], "--spool is where frames wait for Kafka"),
        (["--log", "LOG", "--config", "NONE"], "No such file or directory"),
        (["--kafka", "nohost"], "bootstrap is HOST:PORT"),
        (["--config", "TYPO"], "unknown key agent.machin; the nearest valid one is agent.machine"),
        (["--config", "SECRET"], "kafka.sasl_password_env names the environment variable NOT_SET, which is not set"),
    ],
)
@pytest.mark.kernel
def test_what_is_wrong_is_said_and_nothing_is_made(readable, tmp_path, capsys, words, said):
    files = {
        "TYPO": '[agent]\nmachin = "x"\n',
        "SECRET": '[kafka]\nbootstrap = "h:1"\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\n'
        'sasl_username = "u"\nsasl_password_env = "NOT_SET"\n',
    }
    names = {"LOG": tmp_path / "log", "NONE": tmp_path / "none"}
    for name, text in files.items():
        names[name] = tmp_path / f"{name}.toml"
        names[name].write_text(text)
    assert cli.main(["run", *(str(names.get(word, word)) for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


@pytest.mark.kernel
def test_check_says_who_the_machine_is_and_what_it_offers(readable, tmp_path, capsys):
    assert cli.main(["check"]) == 0
    identity, available = capsys.readouterr().out.splitlines()[:3], capsys
    assert [line.split() for line in identity] == [
        ["machine", machine_id()],
        ["boot_id", boot_id()],
        ["layer", kernel_layer()],
    ]
    config = tmp_path / "x.toml"
    config.write_text('[agent]\nmachine = "web"\nlayer = "host"\n')
    assert cli.main(["check", "--config", str(config)]) == 0
    lines = available.readouterr().out.splitlines()
    assert lines[0].split() == ["machine", "web"]
    assert lines[2].split() == ["layer", "host"]
    assert lines[3].startswith("kmsg     available: /dev/kmsg is readable")
    assert lines[-1] == f"config   {config} is valid"


def test_check_says_what_is_missing_with_exit_77(monkeypatch, capsys):
    def refuse(device=kmsg.DEVICE):
        raise AccessError("cannot read it: remedy")

    monkeypatch.setattr(kmsg, "open_device", refuse)
    assert cli.main(["check"]) == 77
    assert "kmsg     missing: cannot read it: remedy" in capsys.readouterr().out


def test_check_ends_well_when_only_what_nobody_wants_is_missing(readable, monkeypatch, tmp_path, capsys):
    def refuse():
        raise AccessError("no trace events: remedy")

    monkeypatch.setattr(tracefs, "attach", refuse)
    assert cli.main(["check"]) == 0
    assert "ftrace   missing: no trace events: remedy" in capsys.readouterr().out
    (tmp_path / "x.toml").write_text('[agent]\nsurfaces = ["kmsg", "ftrace"]\n[[ftrace.sets]]\nevents = ["sched:*"]\n')
    assert cli.main(["check", "--config", str(tmp_path / "x.toml")]) == 77


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("surface", "more", "said"),
    [
        ("ftrace", '[[ftrace.sets]]\nevents = ["sched:sched_swich"]', "there is no event sched:sched_swich: the nearest is sched:sched_switch"),
        ("ftrace", '[[ftrace.sets]]\nevents = ["sched:*"]\nclock = "mon"', "no clock 'mon'; the nearest is mono"),
        ("ftrace", '[[ftrace.sets]]\nevents = ["sched:*"]\nfilters = ["irq:irq_handler_entry=irq > 1"]', "irq:irq_handler_entry"),
        ("bpf", '[[bpf.programs]]\nname = "sched-dely"', "there is no BPF program sched-dely: the nearest is sched-delay"),
    ],
)  # fmt: skip
def test_check_refuses_a_config_that_a_run_would(readable, tmp_path, capsys, surface, more, said):
    config = tmp_path / "x.toml"
    config.write_text(f'[agent]\nsurfaces = ["{surface}"]\n{more}\n')
    assert cli.main(["check", "--config", str(config)]) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"config   {config}: ")
    assert said in last


def test_check_refuses_a_wrong_config(tmp_path, capsys):
    (tmp_path / "x.toml").write_text("[agent]\nlinger_s = 1\n")
    assert cli.main(["check", "--config", str(tmp_path / "x.toml")]) == 2
    assert "unknown key agent.linger_s; the nearest valid one is agent.linger_ms" in capsys.readouterr().err


@pytest.mark.kernel
def test_a_run_leaves_a_log_with_its_tags_and_ends_with_0(readable, tmp_path):
    flags = ["--machine", "web-1", "--layer", "host", "--heartbeat-s", "0.2", "--linger-ms", "1", "--surface", "kmsg"]
    done = agent("run", "--log", tmp_path / "log", "--for", "1", *flags)
    assert (done.returncode, done.stdout) == (0, "")
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert messages[0].startswith("watching kmsg as run ")
    assert messages[-1].startswith("stopped after ")
    reader = DirectoryReader(tmp_path / "log")
    (partition,) = [each for each in reader.partitions(["hypocenter.log"]) if reader.end_offset(each)]
    reader.seek(partition, 0)
    frames = []
    while len(frames) < reader.end_offset(partition):
        frames += [decode(message.value) for message in reader.poll(100)[partition]]
    reader.close()
    assert {(each.stream.machine, each.stream.layer) for each in frames} == {("web-1", "host")}
    assert sum(each.encoding == "heartbeat" for each in frames) >= 4
    assert messages[-1] == f"stopped after {sum(each.count for each in frames)} records"


def test_the_log_of_another_machine_is_refused_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kmsg, "check", lambda: "readable")
    write(tmp_path, range(1))
    for _ in range(2):  # and the directory is free again
        assert cli.main(["run", "--log", str(tmp_path), "--machine", "web-1", "--for", "1"]) == 2
        assert f"{tmp_path} holds the log of machine machine, and this is web-1. If" in capsys.readouterr().err


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_0(readable, tmp_path, number):
    command = [sys.executable, "-m", "producers.cli", "run", "--log", tmp_path / "log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert "watching kmsg" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(timeout=30) == 0


@pytest.mark.kernel
def test_a_log_that_another_agent_owns_is_exit_75(readable, tmp_path):
    assert agent("run", "--log", tmp_path / "log", "--for", "0.1").returncode == 0
    with (tmp_path / "log" / "writer.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = agent("run", "--log", tmp_path / "log", "--for", "0.1")
    assert done.returncode == 75
    assert done.stderr.startswith("hypocenter-agent: ")


@pytest.mark.kernel
def test_a_broker_that_never_came_is_exit_69_and_the_records_wait(readable, tmp_path):
    started_s = time.monotonic()
    done = agent("run", "--kafka", "127.0.0.1:1", "--spool", tmp_path / "spool", "--for", "1")
    assert done.returncode == 69
    assert "the rest waits in the spool for the next run" in done.stderr
    assert time.monotonic() - started_s < 40
    assert list((tmp_path / "spool" / "hypocenter.log" / "0").glob("*.seg"))


def test_interrupted_while_starting_is_exit_130(monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.registry, "check", interrupt)
    assert cli.main(["run", "--log", "/nonexistent"]) == 130
