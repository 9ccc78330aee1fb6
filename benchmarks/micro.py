"""What `bench_micro` starts: a pyperf script, `python -m benchmarks.micro -o FILE`."""

from pathlib import Path
from typing import Any

import pyperf

from benchmarks.text import frames, records
from consumers.decode import kmsg as decoder
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import frame as codec
from schemas import kmsg

_FRAME = 500
_MANY = 100_000
#: Records that one call of each benchmark handles.
RECORDS = {
    "frame encode": _FRAME,
    "frame decode": _FRAME,
    "kmsg pack": _FRAME,
    "kmsg unpack": _FRAME,
    "kmsg decode_many": _MANY,
}


def main() -> None:
    """Run all, as pyperf's command line says."""
    runner = pyperf.Runner(add_cmdline_args=_pass_on)
    runner.argparser.add_argument("--captures", type=Path)
    args = runner.parse_args()
    lines = list(records(_MANY, args.captures))
    made = list(frames(lines, 1, _FRAME))
    one = made[0]
    data = codec.encode(one)
    items = [FrameIn(frame, 0, Partition("t", 0), offset) for offset, frame in enumerate(made)]
    runner.bench_func("frame encode", codec.encode, one)
    runner.bench_func("frame decode", codec.decode, data)
    runner.bench_func("kmsg pack", kmsg.pack, lines[:_FRAME])
    runner.bench_func("kmsg unpack", kmsg.unpack, one.body)
    runner.bench_func("kmsg decode_many", decoder.decode_many, items)


def _pass_on(command: list[str], args: Any) -> None:
    if args.captures:
        command += ["--captures", str(args.captures)]


if __name__ == "__main__":
    main()
