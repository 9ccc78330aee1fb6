"""Recorded kernel logs in other dress: as a console, a journal or a serial line gives them, damaged and doubled."""

from pathlib import Path

CAPTURES = Path(__file__).parents[1] / "reports" / "captures"


def records(name):
    """Return time in us and text of each line that the kernel wrote."""
    found = []
    for raw in (CAPTURES / f"{name}.kmsg").read_bytes().splitlines():
        head, mark, text = raw.partition(b";")
        if not mark or raw.startswith(b" "):
            continue
        fields = head.split(b",")
        if int(fields[0]) < 8:
            found.append((int(fields[2]), text.replace(b"\\x09", b"\t")))
    return found


def console(name, before=b"", caller=b""):
    """Return the lines of a console, with `before` in front of each and `caller` as CONFIG_PRINTK_CALLER has it."""
    return [b"%b[%5d.%06d] %b%b\n" % (before, us // 10**6, us % 10**6, caller, text) for us, text in records(name)]
