import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from consumers.lake.layout import open_lake
from consumers.lake.storage import LocalStorage
from schemas.errors import StorageError, UsageError


def test_exclusive_creation_has_one_winner(storage):
    assert storage.put_exclusive("a/b", b"1") is True
    assert storage.put_exclusive("a/b", b"2") is False
    assert storage.read("a/b") == b"1"


def test_put_file_moves_and_never_overwrites(storage):
    for content, refused in ((b"one", False), (b"two", True)):
        local = storage.scratch() / "x"
        local.write_bytes(content)
        if refused:
            with pytest.raises(StorageError, match="d/x"):
                storage.put_file(local, "d/x")
        else:
            storage.put_file(local, "d/x")
            assert not local.exists()
    assert storage.read("d/x") == b"one"
    assert storage.size_bytes("d/x") == 3


def test_list_replace_delete_and_missing(storage):
    storage.replace("p/2", b"")
    storage.replace("p/1", b"x")
    storage.replace("p/1", b"y")
    storage.replace("q/1", b"")
    assert list(storage.list("p/")) == ["p/1", "p/2"]
    assert storage.read("p/1") == b"y"
    storage.delete("p/1")
    storage.delete("p/1")
    assert not storage.exists("p/1")
    for call in (storage.read, storage.size_bytes, storage.modified_ns):
        with pytest.raises(KeyError):
            call("p/1")
    assert list(storage.list("none/")) == []


def test_a_directory_that_is_no_lake_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a lake"):
        open_lake(tmp_path / "none", create=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        open_lake(tmp_path, create=True)


def test_a_full_disk_is_a_storage_error_that_names_the_path(tmp_path):
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        storage = LocalStorage(tmp_path)
        with pytest.raises(StorageError, match="big: No space"):
            storage.put_exclusive("big", b"x" * 200_000)
        assert not storage.exists("big")
        assert storage.put_exclusive("small", b"x")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path)
    storage.replace("p/sub/1", b"")
    real = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Too many open files"):
        list(storage.list("p/"))
    assert list(storage.list("none/")) == []


def test_what_cannot_be_looked_at_is_not_missing(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.replace("p/1", b"")
    with pytest.raises(StorageError, match="Not a directory"):
        storage.exists("p/1/2")
    assert not storage.exists("p/2")


@pytest.mark.parametrize("folder", ["commits/topic", "data/kmsg"])
def test_a_folder_that_is_a_link_is_an_error_and_not_passed_over(tmp_path, folder):
    storage = LocalStorage(tmp_path / "lake")
    storage.replace(f"{folder}/one", b"1")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "lake" / folder).rename(elsewhere)
    (tmp_path / "lake" / folder).symlink_to(elsewhere)
    with pytest.raises(StorageError, match=f"{folder}: a symbolic link to a folder"):
        list(storage.list(folder.partition("/")[0] + "/"))


def test_of_two_that_make_a_lake_at_once_both_have_it(tmp_path, monkeypatch):
    path, real = tmp_path / "lake", Path.iterdir
    path.mkdir()

    def overtaken(self):
        if self == path and not (path / "lake.json").exists():
            monkeypatch.setattr(Path, "iterdir", real)
            open_lake(path, create=True)
        return real(self)

    monkeypatch.setattr(Path, "iterdir", overtaken)
    assert open_lake(path, create=True).read("lake.json") == (path / "lake.json").read_bytes()


def test_a_copy_of_hard_links_stays_as_it_was(tmp_path):
    storage = LocalStorage(tmp_path / "lake")
    (tmp_path / "lake").mkdir()
    local = storage.scratch() / "x"
    local.write_bytes(b"rows")
    storage.put_file(local, "data/1")
    storage.put_exclusive("commits/1", b"first")
    storage.replace("commits/latest", b"1")
    shutil.copytree(tmp_path / "lake", tmp_path / "copy", copy_function=os.link)
    storage.put_exclusive("commits/1", b"other")
    storage.replace("commits/latest", b"2")
    storage.delete("data/1")
    copy = LocalStorage(tmp_path / "copy")
    assert [copy.read(key) for key in ("data/1", "commits/1", "commits/latest")] == [b"rows", b"first", b"1"]
