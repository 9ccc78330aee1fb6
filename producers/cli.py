"""The `hypocenter-agent` command."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from producers import identity, registry
from producers.agent import run_agent
from producers.children import relay_command, shipper_command
from producers.relay import cli as relay_cli
from producers.relay import port as relay_port
from producers.targets import broker, default_spool, open_log, open_own_log
from schemas import logs, toml_config
from schemas.command_line import Parser, add_version, ended, open_streams
from schemas.config import (
    AgentConfig,
    BpfConfig,
    BpfPinned,
    BpfProgram,
    Config,
    FtraceConfig,
    TraceSet,
    Vm,
    VmsConfig,
)
from schemas.errors import HypocenterError, UsageError
from schemas.surfaces import NAMES, SURFACES

_EPILOG = """\
`hypocenter-agent VERB --help` shows a verb's flags.

examples:
  hypocenter-agent check
  hypocenter-agent run --log /var/lib/hypocenter/log
  hypocenter-agent run --kafka broker.example:9092 --spool /var/lib/hypocenter/spool
  hypocenter-agent run --log DIR --surface ftrace --events 'sched:sched_switch,irq:*' \\
    --filter 'sched:sched_switch=prev_pid != 0'
  hypocenter-agent run --log DIR --surface bpf --program sched-delay
  hypocenter-agent run --log DIR --surface bpf --pinned /sys/fs/bpf/events --struct event
  hypocenter-agent run --relay /dev/virtio-ports/org.hypocenter.0
  hypocenter-agent relay --vm web-1=/run/vm/web-1.sock --log DIR

exit codes:
  0   stopped as asked
  1   a bug
  2   wrong flag, config or directory
  69  the broker or the relay did not take everything before the stop; the rest waits in the spool
  74  the disk refuses
  75  another agent owns the directory
  77  a surface may not be read: it takes root, CAP_SYSLOG or kernel.dmesg_restrict=0; for BPF CAP_BPF and CAP_PERFMON
  130 interrupted while starting
"""
_RUN = """\
Read surfaces until stopped, and append what they give to a log: the embedded one, or a spool that is shipped to Kafka.

Stop it by SIGTERM or SIGINT. Started again it goes on behind what its log holds; what the kernel overwrote meanwhile is
counted as lost.
"""
_CHECK = """\
Say who this machine is and, for each surface, whether it can be read or what is missing. Reads nothing away.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser with all verbs."""
    top = Parser(
        prog="hypocenter-agent",
        description="Stream what this machine's kernel emits into a log, and count what is lost on the way.",
        epilog=_EPILOG,
    )
    add_version(top)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_run(verbs.add_parser("run", help="read surfaces until stopped", description=_RUN))
    relay_cli.add(verbs.add_parser("relay", help="take what guests send, on their host", description=relay_cli.ABOUT))
    check = verbs.add_parser("check", help="say which surfaces this machine offers", description=_CHECK)
    check.add_argument("--config", type=Path, metavar="FILE", help="also read this TOML file and say what is wrong")
    check.set_defaults(func=_check)
    return top


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    target = run.add_mutually_exclusive_group()
    target.add_argument("--log", type=Path, metavar="DIR", help="append to the embedded log in DIR [log.dir]")
    target.add_argument("--kafka", metavar="HOST:PORT", help="ship to this Kafka [kafka.bootstrap]")
    target.add_argument(
        "--relay",
        metavar="PORT",
        help="ship through this port, or vsock:CID:PORT, to the relay [agent.relay]",
    )
    run.add_argument("--spool", type=Path, metavar="DIR", help="spool in front of Kafka or a relay [spool.dir]")
    run.add_argument(
        "--surface",
        action="append",
        choices=NAMES,
        metavar="NAME",
        help=f"one of {', '.join(NAMES)}; repeatable [agent.surfaces]",
    )
    run.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="stop after so long [agent.for_s]")
    run.add_argument("--machine", metavar="ID", help="name of this machine; default its machine-id [agent.machine]")
    run.add_argument("--layer", metavar="NAME", help="layer of this kernel; default found from the CPU [agent.layer]")
    run.add_argument("--linger-ms", type=int, metavar="MS", help="longest wait for a fuller frame [agent.linger_ms]")
    run.add_argument("--heartbeat-s", type=float, metavar="SECONDS", help="heartbeat interval [agent.heartbeat_s]")
    run.add_argument("--metrics", metavar="HOST:PORT", help="serve metrics there; or PORT; or off [agent.metrics]")
    run.add_argument("--verbose", action="store_true", help="log more")
    _add_trace(
        run.add_argument_group("trace events", "the set `default` of the surface ftrace; others: [[ftrace.sets]]")
    )
    group = run.add_argument_group("BPF programs", "of the surface bpf; their thresholds and rings: [[bpf.programs]]")
    group.add_argument(
        "--program", action="append", metavar="LIST", help="NAME[,...] of programs to load; repeatable [bpf.programs]"
    )
    group.add_argument(
        "--pinned", action="append", metavar="LIST", help="PATH[,...] of pins: rings of others; repeatable [bpf.pinned]"
    )
    group.add_argument("--struct", metavar="TYPE", help="C struct of a record of --pinned; default: raw bytes [struct]")
    group = run.add_argument_group("virtual machines", "of the surfaces topology, vcpu-time and qmp: [[vms.machines]]")
    group.add_argument(
        "--qmp", action="append", metavar="NAME=SOCKET", help="monitor of the VM NAME; repeatable [vms.machines]"
    )
    run.set_defaults(func=_run)


def _add_trace(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--events", action="append", metavar="LIST", help="SYSTEM:EVENT[,...], with * and ?; repeatable [events]"
    )
    group.add_argument(
        "--filter",
        action="append",
        metavar="EVENT=EXPR",
        help="trace EVENT only where EXPR holds; repeatable [filters]",
    )
    group.add_argument("--buffer-kib", type=int, metavar="KIB", help="ring of each CPU [buffer_kib_per_cpu]")
    group.add_argument("--clock", metavar="NAME", help="trace clock, mono by default [clock]")


def _run(args: argparse.Namespace) -> int:
    logs.setup(verbose=args.verbose)
    config = toml_config.load(args.config, Config) if args.config else Config()
    agent = _agent_config(args, config.agent)
    config = dataclasses.replace(
        config,
        agent=agent,
        ftrace=_ftrace_config(args, agent.surfaces, config.ftrace),
        bpf=_bpf_config(args, agent.surfaces, config.bpf),
        vms=_vms_config(args.qmp, agent.surfaces, config.vms),
    )
    me = _identity(agent)
    kafka = broker(args.kafka, config, unless=args.log or args.relay)
    for name in agent.surfaces:
        registry.check(name)
    if agent.relay is not None and kafka is None and args.log is None:
        relay_port.verify(agent.relay)
        where = args.spool or config.spool.dir or default_spool()
        run_agent(config, me, open_log(where, config.spool), relay_command(where, agent.relay, me))
    elif kafka is None:
        where = args.log or config.log.dir
        if where is None:
            raise UsageError(
                "where to? give --log DIR, --kafka HOST:PORT, --relay PORT, or a config file that names one of them"
            )
        if args.spool:
            raise UsageError("--spool is where frames wait for Kafka; with --log there is none")
        run_agent(config, me, open_own_log(where, config.log, me.machine), None)
    else:
        where = args.spool or config.spool.dir or default_spool()
        command = shipper_command(where, json.dumps(dataclasses.asdict(kafka)))
        run_agent(config, me, open_log(where, config.spool), command)
    return 0


def _agent_config(args: argparse.Namespace, base: AgentConfig) -> AgentConfig:
    flags = {"machine": args.machine, "layer": args.layer, "for_s": args.for_s, "linger_ms": args.linger_ms}
    flags |= {
        "relay": args.relay,
        "heartbeat_s": args.heartbeat_s,
        "metrics": args.metrics,
        "surfaces": tuple(args.surface) if args.surface else None,
    }
    return dataclasses.replace(base, **{key: value for key, value in flags.items() if value is not None})


# The set that the flags describe takes the place of the one of its name in the file.
def _ftrace_config(args: argparse.Namespace, surfaces: tuple[str, ...], base: FtraceConfig) -> FtraceConfig:
    flags: dict[str, Any] = {"filters": tuple(args.filter) if args.filter else None}
    flags |= {"buffer_kib_per_cpu": args.buffer_kib, "clock": args.clock}
    given = {key: value for key, value in flags.items() if value is not None}
    if args.events is None:
        if given:
            raise UsageError("--filter, --buffer-kib and --clock say how --events are traced: give --events")
        return base
    if "ftrace" not in surfaces:
        raise UsageError("--events are read from the surface ftrace: give --surface ftrace")
    wanted = TraceSet(events=_listed(args.events), **given)
    return dataclasses.replace(base, sets=(*(each for each in base.sets if each.name != wanted.name), wanted))


# The programs of the flag, and its pins, set up as the file says of those that it has.
def _bpf_config(args: argparse.Namespace, surfaces: tuple[str, ...], base: BpfConfig) -> BpfConfig:
    if args.struct is not None and args.pinned is None:
        raise UsageError("--struct says what a record of --pinned is: give --pinned")
    for flag, given in (("--program", args.program), ("--pinned", args.pinned)):
        if given is not None and "bpf" not in surfaces:
            raise UsageError(f"a {flag} is read from the surface bpf: give --surface bpf")
    programs = {each.name: each for each in base.programs}
    pins = {each.pin: each for each in base.pinned}
    found = base
    if args.program is not None:
        wanted = tuple(programs.get(name) or BpfProgram(name) for name in _listed(args.program))
        found = dataclasses.replace(found, programs=wanted)
    if args.pinned is not None:
        rings = [BpfPinned(path) for path in _listed(args.pinned)]
        rings = [pins.get(each.pin, each) for each in rings]
        if args.struct is not None:
            rings = [dataclasses.replace(each, struct=args.struct) for each in rings]
        found = dataclasses.replace(found, pinned=tuple(rings))
    return found


# A socket of the flag takes the place of the one that the file has for that VM.
def _vms_config(sockets: list[str] | None, surfaces: tuple[str, ...], base: VmsConfig) -> VmsConfig:
    if sockets is None:
        return base
    if "qmp" not in surfaces:
        raise UsageError("a --qmp is read from the surface qmp: give --surface qmp")
    machines = {each.name: each for each in base.machines}
    for each in sockets:
        name, _, path = each.partition("=")
        if not name or not path:
            raise UsageError(f"--qmp is NAME=SOCKET, not {each!r:.60}")
        machines[name] = dataclasses.replace(machines.get(name) or Vm(name), qmp=Path(path))
    return dataclasses.replace(base, machines=tuple(machines.values()))


# The words of flags that take several, with commas between, each once.
def _listed(lists: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for each in lists for word in each.split(",") if word.strip()))


def _identity(agent: AgentConfig) -> registry.Identity:
    machine, layer = agent.machine or identity.machine_id(), agent.layer or identity.kernel_layer()
    return registry.Identity(machine, identity.boot_id(), layer)


def _check(args: argparse.Namespace) -> int:
    config = toml_config.load(args.config, Config) if args.config else Config()
    for name, value in zip(registry.Identity._fields, _identity(config.agent), strict=True):
        print(f"{name:8} {value}")
    code, wrong = 0, []
    for name in NAMES:
        try:
            print(f"{name:8} available: {registry.check(name)} ({SURFACES[name].summary})")
            if name in config.agent.surfaces:
                registry.verify(name, config)
        except UsageError as e:
            wrong.append(e)
        except HypocenterError as e:
            print(f"{name:8} missing: {e}")
            # What nobody wants to read may be missing.
            code = e.exit_code if name in config.agent.surfaces else code
    for each in wrong:
        print(f"config   {args.config}: {each}")
    if args.config and not wrong:
        print(f"config   {args.config} is valid")
    return UsageError.exit_code if wrong else code


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    open_streams()
    args = parser().parse_args(argv)
    return ended("hypocenter-agent", lambda: args.func(args))


if __name__ == "__main__":
    sys.exit(main())
