"""What the agent itself wants to know of BTF: where a program's variables and members are, a tracepoint's arguments.

Source: Documentation/bpf/btf.rst; include/uapi/linux/btf.h (struct btf_type, btf_member, btf_var_secinfo).
"""

import ctypes
import struct
from collections.abc import Iterator
from typing import Final

from producers.bpf.libbpf import Libbpf

_KIND_STRUCT: Final = 4
_KIND_TYPEDEF: Final = 8
_KIND_SECTION: Final = 15
_TYPE: Final = struct.Struct("=III")  # name_off, info, size or type
_ENTRY: Final = struct.Struct("=III")  # member: name_off, type, offset in bits; variable: type, offset, size
_COUNT_MASK: Final = 0xFFFF


class Btf:
    """The BTF at `handle`, which belongs to an open object and lives as long as that."""

    def __init__(self, libbpf: Libbpf, handle: int) -> None:
        self._libbpf = libbpf
        self._handle = handle

    def raw(self) -> bytes:
        """Return all of it, as it can be sent."""
        size = ctypes.c_uint32()
        at = self._libbpf.btf__raw_data(self._handle, ctypes.byref(size))
        return ctypes.string_at(at, size.value) if at else b""

    def has_struct(self, name: str) -> bool:
        """Return whether it describes a struct of this name."""
        return self._find(name, _KIND_STRUCT) is not None

    def members(self, name: str) -> dict[str, int]:
        """Return the offset in bytes of each member of the struct `name`; KeyError where there is none."""
        return {self._name(name_off): bits // 8 for name_off, _, bits in self._entries(name, _KIND_STRUCT)}

    def widths(self, name: str) -> dict[str, tuple[int, int]]:
        """Return offset and bytes, with the padding behind, of each member of the struct `name`, in its order."""
        starts = sorted((at, member) for member, at in self.members(name).items())
        found = self._find(name, _KIND_STRUCT)
        assert found is not None
        _, _, size_bytes = _TYPE.unpack(ctypes.string_at(self._type(found), _TYPE.size))
        ends = [at for at, _ in starts[1:]] + [size_bytes]
        return {member: (at, end - at) for (at, member), end in zip(starts, ends, strict=True)}

    def variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Return offset and size in bytes of each variable of `section`; KeyError where there is none."""
        found = {}
        for variable, offset, size_bytes in self._entries(section, _KIND_SECTION):
            name_off, _, _ = _TYPE.unpack(ctypes.string_at(self._type(variable), _TYPE.size))
            found[self._name(name_off)] = (offset, size_bytes)
        return found

    def arguments(self, tracepoint: str) -> int | None:
        """Return how many arguments the kernel's `tracepoint` gives; None where there is no such tracepoint."""
        found = self._find(f"btf_trace_{tracepoint}", _KIND_TYPEDEF)
        if found is None:
            return None
        # typedef void (*btf_trace_NAME)(void *data, ...)
        _, _, pointer = _TYPE.unpack(ctypes.string_at(self._type(found), _TYPE.size))
        _, _, function = _TYPE.unpack(ctypes.string_at(self._type(pointer), _TYPE.size))
        _, info, _ = _TYPE.unpack(ctypes.string_at(self._type(function), _TYPE.size))
        return int(info & _COUNT_MASK) - 1

    def _entries(self, name: str, kind: int) -> Iterator[tuple[int, int, int]]:
        found = self._find(name, kind)
        if found is None:
            raise KeyError(name)
        at = self._type(found)
        _, info, _ = _TYPE.unpack(ctypes.string_at(at, _TYPE.size))
        count = info & _COUNT_MASK
        yield from _ENTRY.iter_unpack(ctypes.string_at(at + _TYPE.size, count * _ENTRY.size))

    def _find(self, name: str, kind: int) -> int | None:
        found = int(self._libbpf.btf__find_by_name_kind(self._handle, name.encode(), kind))
        return found if found > 0 else None

    def _type(self, number: int) -> int:
        at = self._libbpf.btf__type_by_id(self._handle, number)
        assert at, f"BTF has no type {number}"
        return int(at)

    def _name(self, offset: int) -> str:
        name: bytes = self._libbpf.btf__name_by_offset(self._handle, offset)
        return name.decode()
