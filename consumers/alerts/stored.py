"""What a commit of the alerter keeps of one machine or VM: the state of what follows it and its cases, with a bound.

They are values of JSON. Each incident stands there once: a case whose incident is still held names it only. What is
small is plain JSON, for people; the rest is one zstd frame of it, as the reports of a machine are like one another.
A kernel can print what does not compress: of that, texts are left out until it fits, of the oldest first and never what
an alert says. Reports count what they lack, and the rows of `incidents` that were committed before have it.

Version 1, which does not say so, is {kernel, cases} with every incident whole. Version 2 is {v, kernel, cases}, of a VM
{v, monitor, cases}, or {v, size, zstd}: the frame of that object in base64, and how many bytes it has.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from consumers.alerts.case import Case
from consumers.alerts.machine import Machine
from consumers.alerts.vm import Vm, Who
from schemas import zstd
from schemas.errors import BadInputError, StorageError
from schemas.stream import Stream

VERSION: Final = 2
#: As JSON in a commit, and the most that is unpacked.
STATE_SIZE_MAX: Final = 240 << 10
UNPACKED_SIZE_MAX: Final = 16 << 20
_PACKED_FROM: Final = 4 << 10
_FRAMES: Final = 4
_Value = dict[str, Any]


class Stored(NamedTuple):
    """A machine or VM and its cases, the oldest first."""

    followed: Machine | Vm
    cases: list[Case]


def pack(followed: Machine | Vm, cases: list[Case]) -> _Value:
    """Return what a commit keeps of `followed` and `cases`, the oldest first; it shares nothing with them."""
    held = [followed.holds(case.incident.id) for case in cases]
    state = {
        "v": VERSION,
        "kernel" if isinstance(followed, Machine) else "monitor": followed.state(),
        "cases": [case.to_json(whole=not each) for case, each in zip(cases, held, strict=True)],
    }
    text = _text(state)
    if len(text) < _PACKED_FROM:
        small: _Value = json.loads(text)
        return small
    value = _packed(text)
    return value if len(_text(value)) <= STATE_SIZE_MAX else _fitted(json.loads(text), value)


def unpack(stream: Stream, value: _Value, stopped_ns: int) -> Stored:
    """Return what `pack` gave for the machine or VM of `stream`, or version 1 of it.

    A VM is stopped when it was so for `stopped_ns`.

    Raises:
        StorageError: a newer program stored it, or it is damaged.
    """
    where = f"the alerter's state of {stream.layer} {stream.machine}{stream.instance and f' {stream.instance}'}"
    version = value.get("v", 1)
    if version not in (1, VERSION):
        raise StorageError(f"{where} is of version {version}, and this program reads versions 1 and {VERSION}")
    try:
        if "zstd" in value:
            value = _unpacked(value)
        followed = _restored(Who(stream.machine, stream.layer, stream.instance), value, stopped_ns)
        return Stored(followed, [Case.from_json(each, followed.incident) for each in value["cases"]])
    except (BadInputError, KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise StorageError(f"{where} is damaged: {e!r}") from e


def _restored(who: Who, value: _Value, stopped_ns: int) -> Machine | Vm:
    if who.vm:
        return Vm.restore(who, stopped_ns, value["monitor"])
    return Machine.restore(who.machine, who.layer, value["kernel"])


def _text(value: _Value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _packed(text: bytes) -> _Value:
    return {"v": VERSION, "size": len(text), "zstd": base64.b64encode(zstd.compress(text)).decode()}


def _unpacked(value: _Value) -> _Value:
    size = value["size"]
    if not 0 < size <= UNPACKED_SIZE_MAX:
        raise ValueError(f"a size of {size}")
    found: _Value = json.loads(zstd.decompress(base64.b64decode(value["zstd"], validate=True), size))
    return found


# Each cut is taken to save what such text took so far; how much it did is known when all is packed again.
def _fitted(state: _Value, value: _Value) -> _Value:
    cuts = _cuts(state)
    while (over := len(_text(value)) - STATE_SIZE_MAX) > 0:
        wanted = over * value["size"] / len(value["zstd"])
        saved = 0
        while saved < wanted and (cut := next(cuts, None)) is not None:
            saved += cut
        if not saved:
            break
        value = _packed(_text(state))
    return value


# Leaves out one piece after the other, the dearest to miss at the end, and yields how many bytes of JSON that saves.
def _cuts(state: _Value) -> Iterator[int]:
    over = [case["incident"] for case in state["cases"] if case["incident"] is not None]
    histories = state.get("kernel", {}).get("histories", [])
    assembled = [each["reports"] for each in histories if "reports" in each]
    holders = [*(history.get("incidents", {}) for history in histories), state.get("monitor", {})]
    held = [each["incident"] for holder in holders for each in holder.get("held", [])]
    growing = [each["report"] for reports in assembled for each in reports["open"]]
    for values, cut in (
        (over, _all_lines),
        (over, _others),
        (assembled, _around),
        (held, _all_lines),
        (growing, _lines),
        (held, _stacks),
    ):
        yield from (_saved(value, cut) for value in values)


def _saved(value: _Value, cut: Callable[[_Value], None]) -> int:
    before = len(_text(value))
    cut(value)
    return before - len(_text(value))


def _lines(report: _Value) -> None:
    report["dropped_lines"] += len(report["lines"])
    report["lines"] = []


def _all_lines(incident: _Value) -> None:
    for report in _reports(incident):
        _lines(report)


# Of what will not change any more the root alone tells.
def _others(incident: _Value) -> None:
    root = incident["root"]
    if isinstance(root, int):
        incident["dropped_reports"] += len(incident["reports"]) - 1
        incident["reports"], incident["root"] = [incident["reports"][root]], 0


# Lines beside reports.
def _around(assembled: _Value) -> None:
    assembled["recent"] = []


def _stacks(incident: _Value) -> None:
    for number, report in enumerate(incident["reports"]):
        report["notes"] = []
        if number != incident["root"]:
            report |= {"frames": report["frames"][:_FRAMES], "hardware": "", "release": "", "taint": ""}


def _reports(incident: _Value) -> Iterator[_Value]:
    yield from incident["reports"]
    if not isinstance(incident["root"], int):
        yield incident["root"]
