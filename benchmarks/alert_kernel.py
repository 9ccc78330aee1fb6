"""What a record of a real kernel costs until it is screened, by agent, log and alerter, and that none is missed."""

import re
import time
from pathlib import Path
from typing import Final

from benchmarks.base import Options, Reach, Row, Skipped, log, scratch
from benchmarks.kernel import Agent, Writer, kernel_log
from benchmarks.processes import cpu_s, finish, ours, start
from consumers.transport.base import Partition
from consumers.transport.log import DirectoryReader
from schemas.frame import decode
from schemas.surfaces import TOPIC_LOG

_RATE: Final = 20_000
_LOG: Final = Partition(TOPIC_LOG, 0)
_CPU: Final = "alerts, CPU per kmsg record, read to screened"
#: After which the alerter, that polls 20 times a second, has read what is in the log; its own count is asked then.
_BEHIND_S: Final = 1.0
_MESSAGES: Final = re.compile(r"stopped; .*?(\d+) messages")


def rows(options: Options) -> list[Row]:
    """Return us of CPU for each record, of both together and of the alerter, and records missed."""
    count, repeats = (60_000, 2) if options.quick else (200_000, 4)
    try:
        with kernel_log() as writer:
            found = [_run(writer, count) for _ in range(repeats)]
    except Skipped as e:
        return [Row(_CPU, [], "us", None, str(e))]
    both, alerter, missed, untold = (list(values) for values in zip(*found, strict=True))
    how = f"{count:,} records at {_RATE:,}/s of this kernel; agent, log directory and alerter"
    return [
        Row(_CPU, both, "us", Reach(8), how),
        Row("alerts, of it the alerter's", alerter, "us", None, "the same, its idle turns included"),
        Row("alerts, kmsg records missed", missed, "records", Reach(0), "positions that the log lacks"),
        Row(
            "alerts, kmsg records missed and not told", untold, "records", Reach(0), "of them, without the agent's word"
        ),
    ]


# Returns us for each record of both and of the alerter, how many were missed, and how many of these nobody told of.
def _run(writer: Writer, count: int) -> tuple[float, float, float, float]:
    with scratch() as root:
        agent = Agent(root)
        errors = (root / "alert.err").open("wb")
        where = ("--lake", str(root / "lake"), "--log", str(agent.log), "--metrics", "off")
        alerter = start(ours("consumers.cli", "alert", *where), stderr=errors)
        try:
            begin = agent.settle()
            time.sleep(2 * _BEHIND_S)
            agent_s, alerter_s = agent.cpu_s(), cpu_s([alerter.pid])
            writer.write(count, _RATE)
            end = agent.settle()
            time.sleep(_BEHIND_S)
            agent_s, alerter_s = agent.cpu_s() - agent_s, cpu_s([alerter.pid]) - alerter_s
        finally:
            alerter.terminate()
            finish(alerter)
            errors.close()
            agent.stop()
        frames, stored, told = _stored(agent.log, begin, end)
        read = _MESSAGES.search((root / "alert.err").read_text())
        if read is None or int(read[1]) < frames:
            raise RuntimeError(f"the alerter read {read and read[1]} of {frames} frames")
    missed, records = end - begin - stored, end - begin
    agent_us, alerter_us = agent_s / records * 1e6, alerter_s / records * 1e6
    log(f"  {agent_us:.2f} us of the agent, {alerter_us:.2f} of the alerter, {missed} missed, {told} told")
    return agent_us + alerter_us, alerter_us, missed, abs(missed - told)


# Returns how many frames the log has up to position `end`, how many records from `begin` on, and how many losses.
def _stored(folder: Path, begin: int, end: int) -> tuple[int, int, int]:
    reader = DirectoryReader(folder)
    last, frames, stored, told = reader.end_offset(_LOG), 0, 0, 0
    reader.seek(_LOG, 0)
    offset = 0
    while offset < last:
        for message in reader.poll(1000).get(_LOG, []):
            offset = message.offset + 1
            frame = decode(message.value)
            if frame.first < end:
                frames = offset
            told += sum(loss.count or 0 for loss in frame.losses if begin <= loss.first_position < end)
            if frame.count:
                stored += max(0, min(frame.next, end) - max(frame.first, begin))
    reader.close()
    return frames, stored, told
