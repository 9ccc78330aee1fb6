"""The verb `hypocenter-agent relay`: its flags, and the start of the relay."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Final

from producers import identity
from producers.children import shipper_command
from producers.relay import vms as relay_vms
from producers.relay.guest import Host
from producers.relay.server import Relay, run_relay
from producers.relay.vms import Vm, Vsock
from producers.relay.ways import listen_vsock
from producers.targets import broker, default_spool, open_log
from schemas import logs, toml_config
from schemas.config import Config
from schemas.errors import UsageError

ABOUT: Final = """\
Take the frames of this host's guests from their virtio-serial ports, stamp each with the guest it came from, and append
them to a log: the embedded one, or a spool that is shipped to Kafka. A guest forgets a frame when it is durable here.
"""
# What a spool may hold beyond what makes guests wait: nothing that is not shipped is ever deleted.
_UNBOUNDED_BYTES: Final = 1 << 50


def add(verb: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the verb."""
    verb.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags override its keys")
    verb.add_argument(
        "--vm",
        action="append",
        default=[],
        metavar="NAME=SOCKET",
        help="a guest; or NAME=listen:SOCKET, or NAME=cid:N; with ,uuid=UUID behind; repeatable",
    )
    verb.add_argument("--vm-dir", type=Path, metavar="DIR", help="a guest for each NAME.sock there, at any time")
    verb.add_argument(
        "--libvirt-xml", type=Path, metavar="PATH", help="guests of libvirt's XML in this file, or in this folder"
    )
    verb.add_argument(
        "--vsock", type=int, metavar="PORT", help="listen on this port of AF_VSOCK, for guests that have a CID"
    )
    target = verb.add_mutually_exclusive_group()
    target.add_argument("--log", type=Path, metavar="DIR", help="append to the embedded log in DIR [log.dir]")
    target.add_argument("--kafka", metavar="HOST:PORT", help="ship to this Kafka [kafka.bootstrap]")
    verb.add_argument("--spool", type=Path, metavar="DIR", help="spool in front of Kafka [spool.dir]")
    verb.add_argument("--machine", metavar="ID", help="name of this host; default its machine-id [agent.machine]")
    verb.add_argument("--metrics", metavar="HOST:PORT", help="serve metrics there; or PORT; or off [relay.metrics]")
    verb.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="stop after so long [agent.for_s]")
    verb.add_argument("--verbose", action="store_true", help="log more")
    verb.set_defaults(func=_relay)


def _relay(args: argparse.Namespace) -> int:
    logs.setup(verbose=args.verbose)
    config = toml_config.load(args.config, Config) if args.config else Config()
    given = {"machine": args.machine, "for_s": args.for_s}
    agent = dataclasses.replace(config.agent, **{key: each for key, each in given.items() if each is not None})
    relay = config.relay if args.metrics is None else dataclasses.replace(config.relay, metrics=args.metrics)
    config = dataclasses.replace(config, agent=agent, relay=relay)
    if not (args.vm or args.vm_dir or args.libvirt_xml):
        raise UsageError("whose frames? give --vm NAME=SOCKET, --vm-dir DIR or --libvirt-xml PATH")

    def find() -> list[Vm]:
        vms = [relay_vms.parse(text) for text in args.vm]
        vms += relay_vms.in_folder(args.vm_dir) if args.vm_dir else []
        if args.libvirt_xml:
            vms += relay_vms.in_xml(args.libvirt_xml, vsock=args.vsock is not None)
        return relay_vms.together(vms)

    if any(isinstance(vm.way, Vsock) for vm in find()) and args.vsock is None:
        raise UsageError("a guest with a CID comes by AF_VSOCK: give --vsock PORT")
    host = Host(agent.machine or identity.machine_id(), identity.boot_id())
    kafka = broker(args.kafka, config, unless=args.log)
    where = (args.log or config.log.dir) if kafka is None else (args.spool or config.spool.dir or default_spool())
    if where is None:
        raise UsageError("where to? give --log DIR, --kafka HOST:PORT, or a config file that names one of them")
    vsock = None if args.vsock is None else listen_vsock(args.vsock)
    if kafka is None:
        writer, command, hold_bytes = open_log(where, config.log), None, None
    else:
        hold_bytes = config.spool.retention_bytes
        writer = open_log(where, dataclasses.replace(config.spool, retention_bytes=_UNBOUNDED_BYTES))
        command = shipper_command(where, json.dumps(dataclasses.asdict(kafka)))
    run_relay(Relay(config, host, find, writer, shipper=command, hold_bytes=hold_bytes, vsock=vsock), writer)
    return 0
