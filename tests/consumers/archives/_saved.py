"""A saved copy of a tracefs instance, written here."""

from tests.consumers._pages import TICK
from tests.consumers.archives._trace_dat import CLOCKS
from tests.consumers.decode import ftrace_kernel


def write(path, form, cpus, *, events=None, clock=CLOCKS, header=True, subbuf_kib=None, stats=None):
    """Write the copy of an instance with the pages of each of `cpus`, some bytes each."""
    events = {"sys/tick": TICK} if events is None else events
    texts = {f"events/{name}/format": text for name, text in events.items()}
    if header:
        texts["events/header_page"] = form.header_text
    if clock is not None:
        texts["trace_clock"] = clock
    if subbuf_kib is not None:
        texts["buffer_subbuf_size_kb"] = f"{subbuf_kib}\n"
    for cpu, text in (stats or {}).items():
        texts[f"per_cpu/cpu{cpu}/stats"] = text
    data = {f"per_cpu/cpu{cpu}/trace_pipe_raw": each for cpu, each in cpus.items()}
    for name, content in {**{name: text.encode() for name, text in texts.items()}, **data}.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def copy(instance, path):
    """Copy a tracing instance of this kernel, as a user would; its pages are gone from it then."""
    names = ["events/header_page", "trace_clock", "buffer_subbuf_size_kb"]
    names += [each.relative_to(instance) for each in instance.glob("events/*/*/format")]
    for name in names:
        if (instance / name).exists():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes((instance / name).read_bytes())
    for cpu in ftrace_kernel.cpus(instance):
        folder = path / "per_cpu" / f"cpu{cpu}"
        folder.mkdir(parents=True)
        (folder / "trace_pipe_raw").write_bytes(b"".join(ftrace_kernel.pages(instance, cpu, 8192)))
        (folder / "stats").write_bytes((instance / "per_cpu" / f"cpu{cpu}" / "stats").read_bytes())
    return path
