"""Frames of trace pages, and of the description that they need, made as the agent makes them."""

from schemas import ftrace
from schemas.frame import Frame, encode
from schemas.stream import Stream
from tests.consumers.decode.ftrace_writer import Form

FORM = Form()
SET = Stream("m", "b", "guest-kernel", "ftrace", "set", "mono")
CPU = SET._replace(instance="set/cpu0")
T = 5_000_000_000
COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)


def event_text(name, number, *fields):
    """Return a format file of fields (declaration, size, signed), one behind the other."""
    lines, at = [], 8
    for declaration, size, signed in fields:
        lines.append(f"\tfield:{declaration};\toffset:{at};\tsize:{size};\tsigned:{signed};\n")
        at += size
    return f'name: {name}\nID: {number}\nformat:\n{COMMON}{"".join(lines)}\nprint fmt: ""\n'


TICK = event_text("tick", 7, ("int value", 4, 1))
TOCK = event_text("tock", 8, ("char text[8]", 8, 0))


def formats(events=None, **changes):
    """Return the body of a description of `events`."""
    events = {"sys:tick": TICK, "sys:tock": TOCK} if events is None else events
    values = {"clock": "mono", "page_bytes": 4096, "byteorder": "little", "word_bytes": 8, **changes}
    return ftrace.pack_formats(ftrace.Formats(FORM.header_text, events=events, **values))


FORMATS = formats()


def payload(number, data, pid=1, flags=0):
    return FORM.payload(number, bytes((flags, 0)) + pid.to_bytes(4, "little") + data)


def tick(value, delta=1, number=7, size=4):
    return FORM.event(delta, payload(number, value.to_bytes(size, "little", signed=value < 0)))


def tock(text, delta=1):
    return FORM.event(delta, payload(8, text.ljust(8, b"\0")))


def page(*values, **changes):
    """Return a page with a tick of each of `values`."""
    return FORM.page(T, *(tick(value) for value in values), **changes)


def described(position=0, number=0, body=FORMATS, *, run="r", stream=SET):
    """Return the frame of a description."""
    return Frame(stream, run, number, position, position + 1, 1, ftrace.FORMATS_ENCODING, 1, body, [])


def paged(first, pages, number=0, *, run="r", stream=CPU, body=FORMATS, losses=()):
    """Return the frame of `pages`, described by `body`."""
    count, name = len(pages), ftrace.descriptor(body)
    where = (stream, run, number, first, first + count, count)
    return Frame(*where, "ftrace", 1, ftrace.pack(list(pages), 4096), list(losses), descriptor=name)


def encoded(*frames):
    return [encode(each) for each in frames]
