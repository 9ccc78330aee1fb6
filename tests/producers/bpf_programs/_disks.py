"""Disks for tests that need no hardware: loop devices over files, and a filesystem that lets their requests wait."""

import contextlib
import fcntl
import mmap
import os
import subprocess
from pathlib import Path

BLOCK_BYTES = 4096
MIB = 1 << 20
#: FIFREEZE and FITHAW of include/uapi/linux/fs.h.
_FREEZE, _THAW = 0xC0045877, 0xC0045878


class Disk:
    """A loop device over a file of `size_bytes` in `folder`."""

    def __init__(self, folder, size_bytes, sparse=False):
        backing = folder / "disk"
        if sparse:
            with backing.open("wb") as file:
                file.truncate(size_bytes)
        else:
            backing.write_bytes(bytes(size_bytes))
        made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=True)
        self.path = made.stdout.strip()
        self.name = Path(self.path).name
        number = Path(self.path).stat().st_rdev
        self.major, self.minor = os.major(number), os.minor(number)

    def set(self, key, value):
        Path(f"/sys/block/{self.name}/queue/{key}").write_text(str(value))

    def direct(self, at_bytes, size_bytes=BLOCK_BYTES, write=True):
        """Write or read directly; OSError where that fails."""
        with mmap.mmap(-1, size_bytes) as data:
            fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
            try:
                return os.pwrite(fd, data, at_bytes) if write else os.preadv(fd, [data], at_bytes)
            finally:
                os.close(fd)

    def close(self):
        subprocess.run(["losetup", "--detach", self.path], check=True)


class Holder:
    """A filesystem that can be frozen: what is written to files on it waits for the thaw."""

    def __init__(self, tmp_path):
        self.path, image = tmp_path / "holder", tmp_path / "image"
        self.path.mkdir()
        with image.open("wb") as file:
            file.truncate(48 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.path], check=True)

    @contextlib.contextmanager
    def frozen(self):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _FREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(fd, _THAW, 0)
        finally:
            os.close(fd)

    def close(self):
        subprocess.run(["umount", self.path], check=True)
