"""The `hypocenter-agent` command."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from producers import identity, registry
from producers.agent import run_agent, shipper_command
from producers.log import LogWriter
from schemas import logs, toml_config
from schemas.config import Config, LogConfig
from schemas.errors import HypocenterError, UsageError
from schemas.kafka_config import KafkaConfig
from schemas.surfaces import SURFACES

_EPILOG = """\
examples:
  hypocenter-agent check
  hypocenter-agent run --log /var/lib/hypocenter/log
  hypocenter-agent run --kafka broker.example:9092 --spool /var/lib/hypocenter/spool

exit codes: 0 stopped as asked; 2 wrong flag or config; 69 nobody answers; 74 disk refuses; 75 another agent owns the
directory; 77 a surface may not be read (root, CAP_SYSLOG, or kernel.dmesg_restrict=0)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hypocenter-agent",
        description="Stream what this machine's kernel emits into a log, and count what is lost on the way.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{run,check}")
    run = verbs.add_parser("run", help="read surfaces until stopped", description="Read surfaces until stopped.")
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    target = run.add_mutually_exclusive_group()
    target.add_argument("--log", type=Path, metavar="DIR", help="append to the embedded log in DIR [log.dir]")
    target.add_argument("--kafka", metavar="HOST:PORT", help="ship to this Kafka [kafka.bootstrap]")
    run.add_argument("--spool", type=Path, metavar="DIR", help="spool in front of Kafka [spool.dir]")
    run.add_argument(
        "--surface", action="append", metavar="NAME", help=f"one of {', '.join(SURFACES)}; repeatable [agent.surfaces]"
    )
    run.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="stop after so long [agent.for_s]")
    run.add_argument("--machine", metavar="ID", help="name of this machine; default its machine-id [agent.machine]")
    run.add_argument("--layer", metavar="NAME", help="layer of this kernel; default found from the CPU [agent.layer]")
    run.add_argument("--linger-ms", type=int, metavar="MS", help="longest wait for a fuller frame [agent.linger_ms]")
    run.add_argument("--heartbeat-s", type=float, metavar="SECONDS", help="heartbeat interval [agent.heartbeat_s]")
    run.add_argument("--verbose", action="store_true", help="log more")
    run.set_defaults(func=_run)
    check = verbs.add_parser(
        "check",
        help="say which surfaces this machine offers",
        description="For each surface: available, or what is missing.",
    )
    check.set_defaults(func=_check)
    return parser


def _run(args: argparse.Namespace) -> int:
    logs.setup(verbose=args.verbose)
    config = toml_config.load(args.config, Config) if args.config else Config()
    flags = {"machine": args.machine, "layer": args.layer, "for_s": args.for_s, "linger_ms": args.linger_ms}
    flags |= {"heartbeat_s": args.heartbeat_s, "surfaces": tuple(args.surface) if args.surface else None}
    agent = dataclasses.replace(config.agent, **{key: value for key, value in flags.items() if value is not None})
    me = registry.Identity(
        agent.machine or identity.machine_id(), identity.boot_id(), agent.layer or identity.kernel_layer()
    )
    kafka = None if args.log else config.kafka
    if args.kafka:
        kafka = dataclasses.replace(kafka, bootstrap=args.kafka) if kafka else KafkaConfig(bootstrap=args.kafka)
    if kafka is None and not (args.log or config.log.dir):
        raise UsageError(
            "where to? give --log DIR, --kafka HOST:PORT, or a config file with [log] dir or [kafka] bootstrap"
        )
    for name in agent.surfaces:
        registry.check(name)
    if kafka is None:
        where = args.log or config.log.dir
        assert where is not None
        run_agent(agent, me, _open(where, config.log), None)
    else:
        where = args.spool or config.spool.dir or _default_spool()
        command = shipper_command(where, json.dumps(dataclasses.asdict(kafka)))
        run_agent(agent, me, _open(where, config.spool), command)
    return 0


def _open(path: Path, config: LogConfig) -> LogWriter:
    return LogWriter(
        path,
        retention_bytes=config.retention_bytes,
        retention_ms=int(config.retention_hours * 3_600_000) if config.retention_hours is not None else None,
        segment_bytes=config.segment_bytes,
    )


def _default_spool() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/hypocenter/spool")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "hypocenter/spool"


def _check(_args: argparse.Namespace) -> int:
    code = 0
    for name, row in SURFACES.items():
        try:
            print(f"{name}: available: {registry.check(name)} ({row.summary})")
        except HypocenterError as e:
            print(f"{name}: missing: {e}")
            code = e.exit_code
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.func(args)
    except HypocenterError as e:
        print(f"hypocenter-agent: {e}", file=sys.stderr)
        return e.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
