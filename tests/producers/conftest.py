"""Fixtures for tests that write to the real kernel log."""

import fcntl
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

PRINTK_DEVKMSG = Path("/proc/sys/kernel/printk_devkmsg")

_WRITE = """
import os, sys
fd = os.open("/dev/kmsg", os.O_WRONLY)
tag, start, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(start, start + count):
    os.write(fd, b"<14>%s record %d of the test, about as long as most kernel lines are\\n" % (tag.encode(), i))
"""


class KernelLog:
    """Writes records that carry `tag` to /dev/kmsg from another process."""

    def __init__(self):
        self.tag = f"hypocenter-test-{secrets.token_hex(6)}"

    def write(self, count, start=0):
        subprocess.run([sys.executable, "-c", _WRITE, self.tag, str(start), str(count)], check=True)

    def write_one(self, text: bytes):
        fd = os.open("/dev/kmsg", os.O_WRONLY)
        os.write(fd, text)
        os.close(fd)


@pytest.fixture
def kernel_log():
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        pytest.skip("needs root and a /dev/kmsg that can be read and written")
    # One test at a time: another run on this machine would flood the ring, or restore the setting under us.
    lock = os.open("/dev/kmsg", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = PRINTK_DEVKMSG.read_text().strip()
    try:
        PRINTK_DEVKMSG.write_text("on\n")
        if PRINTK_DEVKMSG.read_text().strip() != "on":
            pytest.skip(f"kernel.printk_devkmsg is locked at {before}")
        yield KernelLog()
    finally:
        PRINTK_DEVKMSG.write_text(before + "\n")
        os.close(lock)


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 1 MiB, which really refuses."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small tmpfs: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


class ThinDisk:
    """A filesystem on more room than there is: a write succeeds, and only syncing it finds that out."""

    def __init__(self, backing, path):
        self.path, self._image = path, backing / "image"
        self._ballast = backing / "ballast"
        with self._image.open("wb") as file:
            file.truncate(8 << 20)
        subprocess.run(["mkfs.ext2", "-q", "-F", self._image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True)

    def unmount(self):
        subprocess.run(["umount", self.path], check=True)

    def use_up(self):
        free = os.statvfs(self._ballast.parent)
        self._ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 20_000))

    def grow(self):
        self._ballast.unlink()


@pytest.fixture
def thin_disk(small_disk, tmp_path):
    path = tmp_path / "thin"
    path.mkdir()
    try:
        disk = ThinDisk(small_disk, path)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"needs mkfs.ext2 and a loop device: {e}")
    yield disk
    disk.unmount()
