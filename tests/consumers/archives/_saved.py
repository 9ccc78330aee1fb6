"""A saved copy of a tracefs instance, written here."""

from tests.consumers._pages import TICK
from tests.consumers.archives._trace_dat import CLOCKS


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
