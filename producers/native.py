"""The few things that are written in C: `bpf_programs/NAME.c` for each architecture, built by `make bpf`."""

import ctypes
import functools
import os
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

#: No path where the agent runs from an archive.
FOLDER: Final[Traversable] = resources.files("producers") / "bpf_programs"


@functools.cache
def load(name: str) -> ctypes.CDLL:
    """Return the library `name` for this machine.

    Raises:
        OSError: it was not built, or the machine is of another kind.
    """
    file = FOLDER.joinpath(f"{name}-{os.uname().machine}.so")
    return ctypes.CDLL(os.fspath(file)) if isinstance(file, os.PathLike) else _load(name, file.read_bytes())


# The loader takes files only, and a temporary one may lie where nothing can be run. The descriptor stays open, as the
# loader takes what has the same name for the same library.
def _load(name: str, library: bytes) -> ctypes.CDLL:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, library)
    return ctypes.CDLL(f"/proc/self/fd/{fd}")
