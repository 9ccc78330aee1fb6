"""Debian's current kernel for guests: fetched by apt, unpacked into a cache outside of the tree, never installed.

Run as a program it fetches, and says where it lies. Formats: Documentation/arch/x86/boot.rst (bzImage), kmod(8).
"""

import contextlib
import fcntl
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "depmod", "apt-get", "dpkg-deb")
#: What `linux-image-amd64` must be today: the oldest kernel that the agent is held to.
SERIES = "6.1."
_META = "linux-image-amd64"
_FETCH_S_MAX = 300


class GuestError(Exception):
    """No guest can be had; the text is one sentence with the remedy."""


class Kernel(NamedTuple):
    """A kernel that boots by PVH, and the root below which its modules lie."""

    release: str
    vmlinux: Path
    root: Path

    def modules(self, names):
        """Return the files of modules with all that they need, in the order in which they must be loaded."""
        lines = []
        for name in names:
            command = ["modprobe", "-d", self.root, "-S", self.release, "--show-depends", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines += done.stdout.splitlines()
        paths = [line.split()[1] for line in lines if line.startswith("insmod ")]
        return [Path(path) for path in dict.fromkeys(paths)]


def fetch():
    """Return the kernel, from the cache where it is there.

    Raises:
        GuestError: a program is missing, this is no x86-64, or apt has no such kernel.
    """
    if platform.machine() != "x86_64":
        raise GuestError(f"guests are x86-64, and this machine is {platform.machine()}")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise GuestError(f"no {', '.join(missing)}: run `make setup-guest` as root on Debian")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypocenter" / "guest-kernels"
    cache.mkdir(parents=True, exist_ok=True)
    package = _package()
    release = package.removeprefix("linux-image-")
    if not (cache / release).exists():
        with locked(cache):
            if not (cache / release).exists():
                _unpack(package, release, cache)
    return Kernel(release, cache / release / "vmlinux", cache / release)


@contextlib.contextmanager
def locked(cache):
    """Be the only one who changes the cache."""
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download(folder, *packages):
    """Have apt fetch these packages into `folder`; return their files.

    Raises:
        GuestError: it cannot.
    """
    command = ["apt-get", "download", "-q", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S_MAX)
    debs = list(folder.glob("*.deb"))
    if done.returncode or len(debs) != len(packages):
        raise GuestError(f"apt cannot fetch {', '.join(packages)}: {done.stderr.strip()[-300:]}")
    return debs


# The meta package depends on the one of today's ABI, whose name changes with most security updates.
def _package():
    done = subprocess.run(["apt-cache", "depends", _META], capture_output=True, text=True, check=False)
    found = re.search(rf"Depends: (linux-image-{re.escape(SERIES)}\S+)", done.stdout)
    if found is None:
        raise GuestError(f"apt knows no Linux {SERIES}x as {_META}: it takes Debian 12 and `apt-get update`")
    return found[1]


def _unpack(package, release, cache):
    with tempfile.TemporaryDirectory(dir=cache, prefix="part-") as folder:
        part = Path(folder)
        (deb,) = download(part, package)
        root = part / "root"
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        subprocess.run(["depmod", "-b", root, release], check=True)
        image = (root / "boot" / f"vmlinuz-{release}").read_bytes()
        (root / "vmlinux").write_bytes(uncompressed(image))
        shutil.rmtree(root / "boot")
        root.rename(cache / release)
    # Of a kernel that was replaced nothing is needed again.
    for old in cache.iterdir():
        if old.is_dir() and old.name != release:
            with contextlib.suppress(OSError):
                shutil.rmtree(old)


def uncompressed(image):
    """Return the ELF image in a bzImage: half of a boot is spent on unpacking it."""
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    return lzma.LZMADecompressor().decompress(image[start : start + length])


if __name__ == "__main__":
    try:
        print(fetch().vmlinux)
    except GuestError as e:
        sys.exit(f"guest kernel: {e}")
