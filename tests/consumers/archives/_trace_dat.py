"""A small writer of trace.dat, versions 6 and 7, from trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5), not from the reader."""

import zlib
from typing import NamedTuple

import zstandard

from tests.consumers._pages import event_text
from tests.consumers.decode.ftrace_writer import Form

MAGIC = b"\x17\x08\x44tracing"
PACK = {"none": None, "zlib": zlib.compress, "zstd": lambda data: zstandard.ZstdCompressor().compress(data)}
TICK = event_text("tick", 7, ("int value", 4, 1))
OWN = event_text("print", 5, ("int value", 4, 1))
T = 5_000_000_000
CLOCKS = "local global [mono] boot x86-tsc\n"


class Dat(NamedTuple):
    """What a file holds: pages by buffer and CPU, formats by system."""

    form: Form
    buffers: dict
    systems: dict
    own: tuple = (OWN,)
    clock: str = CLOCKS
    ring_clock: str = "mono"
    uname: str = "Linux node-1 6.1 x86_64"
    stats: tuple = ()
    printk: str = '0xffffffff8281aa07 : "thaw_processes"\n'

    def number(self, size, value):
        return value.to_bytes(size, "big" if self.form.big else "little")

    def sized(self, size, data):
        return self.number(size, len(data)) + data

    def text(self, size, data):
        return self.sized(size, data.encode())

    def start(self, version):
        head = MAGIC + version + b"\0" + bytes((self.form.big, 8))
        return head + self.number(4, 4096)

    def header_info(self):
        return (
            b"header_page\0" + self.text(8, self.form.header_text) + b"header_event\0" + self.text(8, "# compressed\n")
        )

    def own_formats(self):
        return self.number(4, len(self.own)) + b"".join(self.text(8, each) for each in self.own)

    def formats(self):
        parts = [self.number(4, len(self.systems))]
        for system, texts in self.systems.items():
            parts += [system.encode() + b"\0", self.number(4, len(texts)), *(self.text(8, each) for each in texts)]
        return b"".join(parts)

    def option(self, number, data):
        return self.number(2, number) + self.sized(4, data)

    def common_options(self):
        found = [self.option(4, self.clock.encode() + b"\0")] if self.clock else []
        found += [self.option(5, self.uname.encode() + b"\0"), self.option(10, bytes(300)), self.option(77, b"later")]
        return found + [self.option(2, each.encode() + b"\0") for each in self.stats]


def tick(form, value, delta=1, number=7):
    order = "big" if form.big else "little"
    rest = bytes((0, 0)) + (9).to_bytes(4, order) + value.to_bytes(4, order, signed=True)
    return form.event(delta, form.payload(number, rest))


def page(form, *values, at=0, **changes):
    """Return a page with a tick of each of `values`."""
    return form.page(T + at, *(tick(form, value) for value in values), **changes)


def sample(form, **changes):
    """Return a file of two CPUs' top buffer and one more, in which every page's events are its own."""
    top = {
        0: [page(form, 100 + i, 200 + i, at=1000 * i) for i in range(5)],
        1: [page(form, 300, missed=17), page(form, 301, at=9)],
    }
    other = {0: [page(form, 500)], 1: []}
    return Dat(form, {"": top, "second": other}, {"sys": (TICK,), "empty": ()}, **changes)


def aligned(data):
    return data + bytes(-len(data) % 4096)


def v6(dat, kind=b"flyrecord\0", version=b"6"):
    """Return the file; the options' offsets of further buffers are known because data are laid out from the end on."""
    symbols = dat.text(4, "ffffffff T start\n") + dat.text(4, dat.printk) + dat.text(8, "1 init\n")
    front = (
        dat.start(version)
        + dat.header_info()
        + dat.own_formats()
        + dat.formats()
        + symbols
        + dat.number(4, len(dat.buffers[""]))
    )
    others = [name for name in dat.buffers if name]
    size = lambda name: sum(len(data) for pages in dat.buffers[name].values() for data in pages)  # noqa: E731

    def table(name, at):
        parts = []
        for pages in dat.buffers[name].values():
            count = sum(map(len, pages))
            parts += [dat.number(8, at if count else 0), dat.number(8, count)]
            at += count
        return kind + b"".join(parts) + (dat.text(8, f"[{dat.ring_clock}]") if dat.clock else b"")

    def data(name):
        return b"".join(each for pages in dat.buffers[name].values() for each in pages)

    def options(places):
        buffers = [dat.option(3, dat.number(8, at) + name.encode() + b"\0") for name, at in places.items()]
        return b"options  \0" + b"".join(dat.common_options() + buffers) + dat.number(2, 0)

    head = len(front + options(dict.fromkeys(others, 0)) + table("", 0))
    at = head + -head % 4096
    places, starts = {}, {"": at}
    at += size("")
    for name in others:
        places[name] = at
        starts[name] = at + 4096
        at = starts[name] + size(name)
        at += -at % 4096
    found = aligned(front + options(places) + table("", starts[""])) + data("")
    for name in others:
        assert places[name] == len(found)
        found = aligned(aligned(found + table(name, starts[name])) + data(name))
    return found


def chunked(dat, pages, pack, chunk_pages=2):
    """Return the compressed data of one CPU, and the size that trace-cmd states of it."""
    parts = [b"".join(pages[at : at + chunk_pages]) for at in range(0, len(pages), chunk_pages)]
    packed = b"".join(dat.number(4, len(pack(each))) + dat.number(4, len(each)) + pack(each) for each in parts)
    return dat.number(4, len(parts)) + packed, len(packed)


def v7(dat, compression="none", option_data=()):
    """Return the file, its buffers behind everything else as trace-cmd writes them."""
    pack = PACK[compression]
    start = dat.start(b"7") + compression.encode() + b"\0" + (b"1.5\0" if pack else b"\0")
    found = bytearray(start + bytes(8))

    def section(number, body, compress=True):
        at = len(found)
        if pack and compress:
            body = dat.number(4, len(pack(body))) + dat.number(4, len(body)) + pack(body)
        found.extend(
            dat.number(2, number)
            + dat.number(2, int(bool(pack and compress)))
            + dat.number(4, 0)
            + dat.number(8, len(body))
            + body
        )
        return dat.option(number, dat.number(8, at))

    def options(parts):
        """Write a section of options and patch the place that must say where it is."""
        nonlocal link
        at = len(found)
        found[link : link + 8] = dat.number(8, at)
        section(0, b"".join(parts) + dat.option(0, bytes(8)), compress=False)
        link = len(found) - 8

    link = len(start)
    first = [section(16, dat.header_info()), section(17, dat.own_formats()), section(18, dat.formats())]
    first.append(section(19, dat.text(4, "ffffffff T start\n")))
    if dat.printk:
        first.append(section(20, dat.text(4, dat.printk)))
    section(15, b"strings\0", compress=False)
    options([*first, *dat.common_options(), dat.option(8, dat.number(4, 2)), *option_data])
    for name, cpus in dat.buffers.items():
        at = len(found)
        found.extend(dat.number(2, 3) + dat.number(2, int(bool(pack))) + bytes(4) + bytes(8))
        entries = []
        for cpu, pages in cpus.items():
            found.extend(bytes(-len(found) % 4096))
            data, size = chunked(dat, pages, pack) if pack and pages else (b"".join(pages), sum(map(len, pages)))
            entries.append(dat.number(4, cpu) + dat.number(8, len(found)) + dat.number(8, size))
            found.extend(data)
        found[at + 8 : at + 16] = dat.number(8, len(found) - at - 16)
        clock = dat.ring_clock if dat.clock else ""
        what = dat.number(8, at) + name.encode() + b"\0" + clock.encode() + b"\0"
        options(
            [dat.option(3, what + dat.number(4, dat.form.page_bytes) + dat.number(4, len(cpus)) + b"".join(entries))]
        )
    return bytes(found)


WRITERS = {
    "v6": v6,
    "v7": v7,
    "v7-zstd": lambda dat: v7(dat, "zstd"),
    "v7-zlib": lambda dat: v7(dat, "zlib"),
}
