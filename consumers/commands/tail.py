"""Follow decoded records as text, like dmesg: straight from the log, before any commit.

Begins with what comes next; with --from-start or --until-end, with the oldest record that the log holds. Losses are
lines between dashes.
"""

import argparse
import dataclasses
import hashlib
import sys
import time

from consumers import render
from consumers.commands.sources import add_source, open_reader, read_config
from consumers.decode import registry
from consumers.decode.base import FrameIn
from consumers.transport.base import Message, Partition, RetentionOvertookError
from schemas.command_line import positive_float
from schemas.errors import BadInputError
from schemas.frame import Frame, decode
from schemas.loss import LossUnit
from schemas.surfaces import DESCRIPTOR_ENCODINGS, HEARTBEAT_ENCODING, SURFACES, surface

_POLL_MS = 20


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_source(sub)
    sub.add_argument("--surface", default="kmsg", metavar="NAME", help=f"one of {', '.join(SURFACES)} [kmsg]")
    sub.add_argument("--from-start", action="store_true", help="begin with the oldest record that the log holds")
    sub.add_argument("--until-end", action="store_true", help="stop at the end of the log as it is now")
    sub.add_argument("--for", dest="for_s", type=positive_float, metavar="SECONDS", help="stop after so long")


def run(args: argparse.Namespace) -> int:
    """Print records until stopped."""
    row = surface(args.surface)
    reader = open_reader(args, read_config(args))
    deadline_s = time.monotonic() + args.for_s if args.for_s is not None else None
    try:
        ends = {partition: reader.end_offset(partition) for partition in reader.partitions([row.topic])}
        at: dict[Partition, int] = {}
        descriptors: dict[bytes, bytes] = {}
        for partition, end in ends.items():
            at[partition] = reader.start_offset(partition) if args.from_start or args.until_end else end
            reader.seek(partition, at[partition])
        while deadline_s is None or time.monotonic() < deadline_s:
            if args.until_end and all(at[partition] >= end for partition, end in ends.items()):
                break
            try:
                polled = reader.poll(_POLL_MS)
            except RetentionOvertookError as e:
                print(f"--- offsets {e.position} to {e.start - 1} were deleted before they were read ---")
                at[e.partition] = e.start
                reader.seek(e.partition, e.start)
                continue
            for partition, messages in polled.items():
                _print(row.name, partition, messages, descriptors)
                at[partition] = messages[-1].offset + 1
            sys.stdout.flush()
    finally:
        reader.close()
    return 0


# Frames of one poll together, so that a surface of many streams is in the order of time.
def _print(name: str, partition: Partition, messages: list[Message], descriptors: dict[bytes, bytes]) -> None:
    frames: dict[tuple[str, int], list[FrameIn]] = {}
    for message in messages:
        try:
            frame = decode(message.value)
            if frame.stream.surface != name:
                continue
            _print_losses(frame)
            if frame.encoding in DESCRIPTOR_ENCODINGS:
                descriptors[hashlib.sha256(frame.body).digest()] = frame.body
            elif frame.encoding != HEARTBEAT_ENCODING:
                registry.decoder_of(frame)
                short = frame.stream._replace(machine=render.short_ids([frame.stream.machine])[frame.stream.machine])
                item = FrameIn(dataclasses.replace(frame, stream=short), message.ts_ns, partition, message.offset)
                frames.setdefault((frame.encoding, frame.encoding_version), []).append(item)
        except BadInputError as e:
            print(f"--- dead letter at {partition} offset {message.offset}: {e} ---")
    for (encoding, version), items in frames.items():
        decoder = registry.decoder_for(encoding, version)
        decoded = decoder.decode_many(items, descriptors)
        sys.stdout.writelines(f"{line}\n" for line in decoder.text_lines(decoded))
        for bad in decoded.bad:
            print(f"--- dead letter at {partition} offset {bad.offset}, position {bad.position}: {bad.detail} ---")


def _print_losses(frame: Frame) -> None:
    for loss in frame.losses:
        count = "an unknown number of" if loss.count is None else loss.count
        unit = "" if loss.unit == LossUnit.POSITION else f"{loss.unit}s "
        if loss.count != 0:
            print(f"--- {count} {unit}lost from {loss.first_position} on: {loss.kind}, {loss.reason} ---")
        else:
            print(f"--- {loss.kind}: {loss.reason} ---")
