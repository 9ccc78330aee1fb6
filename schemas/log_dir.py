"""The log directory's names, its identity, and the reading of `end`: what writer and readers must agree on.

DIR/log.json                              {"format": 1, "id": UUID, "partitions": {topic: n}}, created once
DIR/<topic>/<partition>/<base:020d>.seg   see `schemas.segment`
DIR/<topic>/<partition>/end               what is durable
"""

import json
import os
import re
import time
from pathlib import Path
from typing import Final, NamedTuple

from schemas import segment
from schemas.errors import BadInputError, StorageError, UnavailableError, UsageError

FORMAT: Final = 1
IDENTITY: Final = "log.json"
END: Final = "end"
SUFFIX: Final = ".seg"
_SEGMENT: Final = re.compile(r"([0-9]{20})\.seg")
# A writer overwrites `end` in place, so a reader can see half of each; it is over in a microsecond.
_END_TRIES: Final = 200
_END_RETRY_S: Final = 0.0005


class LogIdentity(NamedTuple):
    """Which log this is, and the partitions that every topic was created with."""

    id: str
    partitions: dict[str, int]


def read_identity(directory: Path) -> LogIdentity:
    """Return the identity of the log in `directory`.

    Raises:
        UnavailableError: there is no log.
        UsageError: it is of another format.
        StorageError: it cannot be read, or is damaged.
    """
    path = directory / IDENTITY
    try:
        value = json.loads(path.read_bytes())
        found = LogIdentity(str(value["id"]), {str(topic): int(n) for topic, n in value["partitions"].items()})
    except (FileNotFoundError, NotADirectoryError):
        raise UnavailableError(f"there is no log in {directory}: it has no {IDENTITY}") from None
    except OSError as e:
        raise StorageError(f"{path}: {e.strerror}") from e
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StorageError(f"{path}: damaged, it does not say which log this is") from None
    if value.get("format") != FORMAT:
        raise UsageError(f"{directory} is a log of format {value.get('format')!r}, this version knows {FORMAT}")
    return found


def encode_identity(identity: LogIdentity) -> bytes:
    """Return the content of `log.json`."""
    return json.dumps({"format": FORMAT, "id": identity.id, "partitions": identity.partitions}).encode()


def partition_dir(directory: Path, topic: str, number: int) -> Path:
    """Return where one partition lies."""
    return directory / topic / str(number)


def segment_path(folder: Path, base: int) -> Path:
    """Return the file of the segment that begins with offset `base`."""
    return folder / f"{base:020d}{SUFFIX}"


def segment_bases(folder: Path) -> list[int]:
    """Return the first offsets of the segments in `folder`, oldest first; empty where there is no such folder.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208  # at every segment's end: no Path for each name
    except FileNotFoundError:
        return []
    except OSError as e:
        raise StorageError(f"{folder}: {e.strerror}") from e
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def read_end(folder: Path) -> segment.End | None:
    """Return what is durable in the partition `folder`, None where nothing was ever published.

    Raises:
        StorageError: the record cannot be read, or stays damaged.
    """
    path = f"{folder}/{END}"  # at every poll: a Path takes longer to make than the record to read
    for attempt in range(_END_TRIES):
        try:
            return segment.decode_end(_read_small(path))
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StorageError(f"{path}: {e.strerror}") from e
        except BadInputError as e:
            if attempt == _END_TRIES - 1:
                raise StorageError(f"{path}: damaged, {e.detail}; the next writer to open the log mends it") from None
        time.sleep(_END_RETRY_S)
    raise AssertionError


# Read at every poll: half the cost of Path.read_bytes.
def _read_small(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, segment.END_BYTES + 1)
    finally:
        os.close(fd)
