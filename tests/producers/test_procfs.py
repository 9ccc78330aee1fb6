"""Files of the real /proc, of one made here, and what is not there."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from producers import procfs
from producers.procfs import HANGS, Reader
from producers.registry import Identity, Known, Opening
from producers.topology import boottime_ns
from schemas import state
from schemas.config import Config, ProcfsConfig
from schemas.errors import AccessError
from schemas.stream import Stream


def test_the_real_files_are_whole_texts_and_read_anew():
    reader = Reader(boottime_ns)
    before, after = reader.sample(), reader.sample()
    reader.close()
    texts = {record.fields["path"]: record.fields for record in before if record.kind == "procfs_text"}
    assert texts["/proc/meminfo"]["text"].startswith("MemTotal:")
    assert "\nctxt " in texts["/proc/stat"]["text"]
    assert texts["/proc/vmstat"]["text"].splitlines() != []
    assert not any(fields["truncated"] for fields in texts.values())
    assert [record.ts_ns for record in before] == sorted(record.ts_ns for record in before)
    assert after[0].fields["text"] != before[0].fields["text"]
    present = {f"/{name}" for name in procfs.FILES if Path(f"/{name}").exists()}
    assert set(texts) | set(reader.absent) >= present


def test_counters_of_hangs_are_the_numbers_in_their_files():
    reader = Reader(boottime_ns)
    (hangs,) = [record.fields for record in reader.sample() if record.kind == "procfs_hangs"]
    reader.close()
    thresh_s = Path("/proc/sys/kernel/watchdog_thresh")
    assert hangs.get("watchdog_thresh_s") == (int(thresh_s.read_text()) if thresh_s.exists() else None)
    assert hangs["tainted"] == int(Path("/proc/sys/kernel/tainted").read_text())
    assert {f"/{HANGS[column]}" for column in HANGS if column not in hangs} <= set(reader.absent)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu 1\n")
    return tmp_path


def test_what_is_not_there_is_named_and_no_error(root):
    reader = Reader(lambda: 7, root)
    assert [tuple(record) for record in reader.sample()] == [
        ("procfs_text", 7, {"path": "/proc/stat", "text": "cpu 1\n", "truncated": False})
    ]
    assert "/proc/schedstat" in reader.absent
    assert "/sys/kernel/oops_count" in reader.absent
    assert "/proc/stat" not in reader.absent
    reader.close()
    assert reader.sample() == []


def test_a_file_that_is_too_long_is_cut_and_says_so(root, monkeypatch):
    monkeypatch.setattr(procfs, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(procfs, "_READ_BYTES", 30)
    (root / "proc/stat").write_text("x" * 100)
    (root / "proc/vmstat").write_text("\xff" + "x" * 100, encoding="latin-1")
    reader = Reader(lambda: 7, root)
    found = {record.fields["path"]: record.fields for record in reader.sample()}
    reader.close()
    assert (len(found["/proc/stat"]["text"]), found["/proc/stat"]["truncated"]) == (100, False)
    assert (found["/proc/vmstat"]["text"], found["/proc/vmstat"]["truncated"]) == ("\ufffd" + "x" * 99, True)


def test_the_surface_is_of_the_layer_of_its_kernel(caplog):
    stream = Stream("m", "b", "guest-kernel", "procfs", "", "boot")
    config = Config(procfs=ProcfsConfig(interval_s=2))
    with caplog.at_level("INFO"):
        (source,) = procfs.open_sources(Opening(Identity("m", "b", "guest-kernel"), {stream: Known(9, 3)}, config))
    source.drain()
    (batch,) = source.cut()
    source.close()
    assert (source.stream, source.tick_s, batch.first) == (stream, 2, 9)
    assert "/proc/stat" in {record.fields.get("path") for record in state.unpack(batch.body)}
    assert sum("which this kernel has not got" in record.message for record in caplog.records) <= 1


def test_check_says_what_is_missing(monkeypatch):
    assert procfs.check().startswith(("all files", "without "))
    nothing = SimpleNamespace(absent=["/proc/stat"], close=lambda: None)
    monkeypatch.setattr(procfs, "Reader", lambda _: nothing)
    with pytest.raises(AccessError, match="is /proc mounted"):
        procfs.check()
