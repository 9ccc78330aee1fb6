"""A kernel module of the tests, built for the kernel of guests with Debian's headers, which apt fetches into the cache.

Run as a program it fetches them, and says where they lie. Sources: Documentation/kbuild/modules.rst; the headers' own Makefile names the place where they would be installed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.guest._kernel import GuestError, download, fetch, locked

HYPLAB = Path(__file__).with_name("hyplab.c")
_ARCH = "-amd64"
_TOOLS = "linux-kbuild-6.1"


def build(kernel, source, folder):
    """Build the module of the one file `source` in `folder`, and return it.

    Raises:
        GuestError: apt cannot fetch the headers, or there is no compiler.
    """
    if missing := [name for name in ("gcc", "make") if shutil.which(name) is None]:
        raise GuestError(f"no {', '.join(missing)}: run `make setup-guest` as root on Debian")
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    shutil.copy(source, folder)
    (folder / "Makefile").write_text(f"obj-m := {source.stem}.o\n")
    command = ["make", "-s", "-C", headers(kernel), f"M={folder}", "modules"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{source.name} does not build: {done.stderr.strip()[-2000:]}")
    return folder / f"{source.stem}.ko"


def headers(kernel):
    """Return the folder of the headers, from the cache where they are there.

    Raises:
        GuestError: apt cannot fetch them.
    """
    # Below the kernel itself, so that they go with it.
    root = kernel.root / "headers"
    release = root / "usr" / "src" / f"linux-headers-{kernel.release}"
    with locked(kernel.root.parent):
        if not root.exists():
            common = f"{kernel.release.removesuffix(_ARCH)}-common"
            part = kernel.root / "headers-part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for deb in download(part, f"linux-headers-{kernel.release}", f"linux-headers-{common}", _TOOLS):
                subprocess.run(["dpkg-deb", "-x", deb, part], check=True)
            makefile = part / release.relative_to(root) / "Makefile"
            installed = f"/usr/src/linux-headers-{common}"
            makefile.write_text(makefile.read_text().replace(f" {installed}", f" {root}{installed}"))
            part.rename(root)
    return release


if __name__ == "__main__":
    try:
        print(headers(fetch()))
    except GuestError as e:
        sys.exit(f"guest headers: {e}")
