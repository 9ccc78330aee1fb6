"""What archives are recognised by: a hash of their content, wherever they lie."""

import hashlib
from pathlib import Path

from schemas.errors import UsageError


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None


def files_digest(root: Path, files: list[Path]) -> str:
    """Return one SHA-256 of several files below `root`: their names there and their content, in the order given.

    Raises:
        UsageError: one cannot be read.
    """
    found = hashlib.sha256()
    for path in files:
        found.update(f"{path.relative_to(root).as_posix()}\0{file_digest(path)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()
