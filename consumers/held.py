"""Values by their key, the newest of them up to a bound of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """At most `bytes_max` bytes of values, as whoever puts one says how many it stands for; of any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._values: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys, the newest last."""
        with self._lock:
            return iter(list(self._values))

    def get(self, key: bytes) -> T | None:
        """Return the value of `key`; it is the newest then."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: bytes, value: T, size_bytes: int) -> None:
        """Hold `value`, and let go of the oldest while there are too many bytes."""
        with self._lock:
            self._bytes += size_bytes - self._values.pop(key, (value, 0))[1]
            self._values[key] = value, size_bytes
            while self._bytes > self._bytes_max:
                self._bytes -= self._values.popitem(last=False)[1][1]
