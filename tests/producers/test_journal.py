import os

import pytest

from producers import journal

BOOT = "65e71522-4b25-445c-892f-041b97c36dad"


def test_what_was_noted_is_found_after_a_kill(tmp_path):
    if (child := os.fork()) == 0:
        made = journal.create(tmp_path / "ftrace", "hypocenter-x-1", BOOT, 4)
        made.note(0, 5, 5)
        made.note(3, 70, 134)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    found = journal.find(tmp_path / "ftrace", "hypocenter-x-1", BOOT, 4)
    assert [found.noted(cpu) for cpu in range(4)] == [(5, 5), (0, 0), (0, 0), (70, 134)]
    found.note(1, 9, 9)
    assert journal.find(tmp_path / "ftrace", "hypocenter-x-1", BOOT, 4).noted(1) == (9, 9)
    found.remove()
    assert list((tmp_path / "ftrace").iterdir()) == []


def test_a_journal_of_another_boot_or_of_too_few_cpus_is_none(tmp_path):
    journal.create(tmp_path / "f", "a", BOOT, 4)
    assert journal.find(tmp_path / "f", "a", "other", 4) is None
    assert journal.find(tmp_path / "f", "a", BOOT, 400) is None
    assert journal.find(tmp_path / "f", "b", BOOT, 4) is None
    (tmp_path / "f" / "c.pages").write_bytes(b"")
    assert journal.find(tmp_path / "f", "c", BOOT, 4) is None


def test_journals_of_rings_that_are_gone_are_told(tmp_path):
    for name in ("a", "b", "c"):
        journal.create(tmp_path / "f", name, BOOT, 1)
    (tmp_path / "f" / "notes.txt").touch()
    assert journal.others(tmp_path / "f", {"b", "d"}) == ["a", "c"]
    journal.delete(tmp_path / "f", "a")
    journal.delete(tmp_path / "f", "a")
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["b.pages", "c.pages", "notes.txt"]
    assert journal.others(tmp_path / "absent", {"b"}) == []


def test_a_full_disk_refuses_at_once_and_not_at_a_note(small_disk):
    (small_disk / "ballast").write_bytes(bytes(900_000))
    with pytest.raises(OSError, match="No space left"):
        journal.create(small_disk / "f", "a", BOOT, 100_000)
    assert list((small_disk / "f").iterdir()) == []
