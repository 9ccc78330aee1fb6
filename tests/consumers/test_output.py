"""Files that commands write: whole or as they were, and never in the place of what is no file."""

import errno
import os
from pathlib import Path

import pytest

from consumers.output import replacing
from schemas.errors import StorageError, UsageError


def test_it_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "out"
    for content in (b"one", b"two"):
        with replacing(path) as file:
            file.write(content)
        assert path.read_bytes() == content


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"two")

    def full():
        with replacing(path) as file:
            file.write(b"three")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"out: No space left"):
        full()
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_who_may_read_it_stays_the_same(tmp_path):
    path = tmp_path / "out"
    path.touch(0o600)
    with replacing(path) as file:
        file.write(b"x")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_what_is_no_file_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name, said in (("pipe", "no regular file"), ("link", "no regular file"), (".", "a directory")):
        with pytest.raises(UsageError, match=said), replacing(tmp_path / name):
            pass
    assert (tmp_path / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    reader, writer = os.pipe()
    with pytest.raises(UsageError, match="no regular file"), replacing(Path(f"/dev/fd/{writer}")):
        pass
    os.close(reader)
    os.close(writer)
    with pytest.raises(UsageError, match="No such file"), replacing(tmp_path / "none" / "out"):
        pass
