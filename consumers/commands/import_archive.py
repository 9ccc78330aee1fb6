"""Store what was saved before: `import kmsg FILE`, `import ftrace DIR` or `import trace-dat FILE`.

kmsg is a file of /dev/kmsg reads, as `dd if=/dev/kmsg of=FILE bs=8k iflag=nonblock` makes one; ftrace a copy of a
tracefs instance with `per_cpu/cpuN/trace_pipe_raw` and `events`; trace-dat a file of trace-cmd's, version 6 or 7. An
archive is recognised by its content: imported again it changes nothing, cut off half way it goes on where it was, under
the names that it has.
"""

import argparse
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from consumers.archives.base import Archive, Tags
from consumers.archives.ftrace import SavedInstance
from consumers.archives.kmsg import KmsgDump
from consumers.archives.store import store
from consumers.archives.trace_dat import TraceDat
from consumers.cli import add_lake
from consumers.progress import ProgressBar
from schemas import bounds
from schemas.errors import UsageError
from schemas.stream import Layer

_KINDS: Final[dict[str, Callable[[Path], Archive]]] = {"kmsg": KmsgDump, "ftrace": SavedInstance, "trace-dat": TraceDat}
_TAG: Final = bounds.tag()
#: Tables of events that are named, the largest; the rest is one sum.
_SHOWN: Final = 10


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("kind", choices=_KINDS, help="what the archive is")
    sub.add_argument("path", type=Path, metavar="FILE|DIR", help="the archive")
    add_lake(sub, "the lake's directory, created if absent")
    sub.add_argument("--machine", metavar="ID", help="machine it was taken on; default as it says, else its name")
    sub.add_argument("--boot-id", metavar="ID", help="boot it was taken in; default made from its content")
    layers = [each.value for each in Layer]
    sub.add_argument(
        "--layer",
        choices=layers,
        metavar="NAME",
        help=f"layer of that kernel, one of {', '.join(layers)} [{Layer.GUEST_KERNEL.value}]",
    )


def run(args: argparse.Namespace) -> int:
    """Import one archive as one commit chain of its own."""
    for flag, tag in (("--machine", args.machine), ("--boot-id", args.boot_id)):
        if tag is not None and not _TAG.allows(tag):
            raise UsageError(f"{flag} is {_TAG.says}, not {tag!r:.60}")
    archive: Archive = _KINDS[args.kind](args.path)
    names = {"machine": args.machine, "boot_id": args.boot_id, "layer": args.layer}
    said = {name: value for name, value in names.items() if value}
    made_id = str(uuid.uuid5(uuid.NAMESPACE_OID, archive.digest))
    tags = Tags(archive.machine, made_id, Layer.GUEST_KERNEL.value, archive.digest)._replace(**said)
    stored = store(archive, tags, args.lake, time.time_ns(), ProgressBar("bytes"), said)
    machine, boot_id, layer, _ = stored.tags
    if not stored.added:
        print(f"{archive.name}: already imported, nothing to do: machine {machine}, boot {boot_id}, layer {layer}")
        return 0
    print(f"{archive.name}: {_summary(stored.rows, archive.surface)}")
    print(f"machine {machine}, boot {boot_id}, into {args.lake}")
    return 0


# The surface's own tables, the largest first; and what was lost or unreadable, also where nothing was.
def _summary(rows: dict[str, int], surface: str) -> str:
    always = ("losses", "dead_letters")
    own = sorted(
        (name for name in rows if name not in always), key=lambda name: (name == "artifacts", -rows[name], name)
    )
    own = own or [surface]
    said = [f"{rows.get(name, 0):,} rows of {name}" for name in own[:_SHOWN]]
    if rest := own[_SHOWN:]:
        said.append(f"{sum(rows[name] for name in rest):,} rows of {len(rest)} more tables")
    return ", ".join([*said, *(f"{rows.get(name, 0):,} rows of {name}" for name in always)])
