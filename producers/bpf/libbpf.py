"""The few calls of libbpf that load a program, through ctypes: an agent needs the library and no compiler.

Source: bpf/libbpf.h and bpf/btf.h of libbpf 1.0 and later, whose functions return NULL or -errno and set errno.
"""

import contextlib
import ctypes
import errno
import functools
import logging
import os
from pathlib import Path
from typing import Final

from schemas.errors import AccessError

log = logging.getLogger(__name__)
_LIBRARY: Final = "libbpf.so.1"
#: Bytes of libbpf's words kept for the sentence of a refusal; the verifier can fill megabytes.
_SAID_BYTES_MAX: Final = 1 << 16
#: Of one line of libbpf's, which may be all of the verifier's; and of that what is kept, its end, where the reason is.
_LINE_BYTES_MAX: Final = 1 << 20
_LINE_BYTES_KEPT: Final = 4096
_LOG: Final = "PROG LOAD LOG"
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_WARN: Final = 0

_P, _S, _I, _U, _B = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_bool
#: Result and arguments of each function that is called.
_FUNCTIONS: Final = {
    "libbpf_version_string": (_S, []),
    "libbpf_num_possible_cpus": (_I, []),
    "libbpf_set_print": (_P, [_P]),
    "bpf_object__open_file": (_P, [_S, _P]),
    "bpf_object__open_mem": (_P, [_S, ctypes.c_size_t, _P]),
    "bpf_object__load": (_I, [_P]),
    "bpf_object__close": (None, [_P]),
    "bpf_object__btf": (_P, [_P]),
    "bpf_object__find_map_by_name": (_P, [_P, _S]),
    "bpf_object__next_program": (_P, [_P, _P]),
    "bpf_program__attach": (_P, [_P]),
    "bpf_program__autoload": (_B, [_P]),
    "bpf_program__set_autoload": (_I, [_P, _B]),
    "bpf_program__section_name": (_S, [_P]),
    "bpf_program__type": (_I, [_P]),
    "bpf_prog_test_run_opts": (_I, [_I, _P]),
    "bpf_program__fd": (_I, [_P]),
    "bpf_program__name": (_S, [_P]),
    "bpf_link__destroy": (_I, [_P]),
    "bpf_link__fd": (_I, [_P]),
    "bpf_iter_create": (_I, [_I]),
    "bpf_map__fd": (_I, [_P]),
    "bpf_map__max_entries": (_U, [_P]),
    "bpf_map__set_max_entries": (_I, [_P, _U]),
    "bpf_map__initial_value": (_P, [_P, ctypes.POINTER(ctypes.c_size_t)]),
    "bpf_map_lookup_elem": (_I, [_I, _P, _P]),
    "bpf_map_update_elem": (_I, [_I, _P, _P, ctypes.c_uint64]),
    "bpf_map_delete_elem": (_I, [_I, _P]),
    "bpf_obj_get": (_I, [_S]),
    "bpf_prog_get_next_id": (_I, [_U, ctypes.POINTER(_U)]),
    "bpf_prog_get_fd_by_id": (_I, [_U]),
    "bpf_obj_get_info_by_fd": (_I, [_I, _P, ctypes.POINTER(_U)]),
    "btf__load_vmlinux_btf": (_P, []),
    "btf__load_from_kernel_by_id": (_P, [_U]),
    "btf__free": (None, [_P]),
    "btf__raw_data": (_P, [_P, ctypes.POINTER(_U)]),
    "btf__find_by_name_kind": (ctypes.c_int32, [_P, _S, _U]),
    "btf__type_by_id": (_P, [_P, _U]),
    "btf__name_by_offset": (_S, [_P, _U]),
}
_PRINT: Final = ctypes.CFUNCTYPE(_I, _I, _P, _P)


class _OpenOptions(ctypes.Structure):
    # The beginning of struct bpf_object_open_opts; the library takes any size that it knows the fields of.
    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


class Libbpf:
    """The loaded library: its functions are attributes. `said` collects its warnings until `refusal` takes them."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY, use_errno=True)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as e:
            raise AccessError(f"BPF programs are loaded by {_LIBRARY} (Debian: apt-get install libbpf1): {e}") from None
        self._said: list[str] = []
        self._said_bytes = 0
        self._libc = ctypes.CDLL(None)
        # Kept here: libbpf holds no reference of its own.
        self._print = _PRINT(self._collect)
        self.libbpf_set_print(self._print)

    def __getattr__(self, name: str) -> "ctypes._FuncPointer":  # for the type checker: they are set by name
        raise AttributeError(name)

    def open_object(self, elf: bytes, name: str) -> int:
        """Return the object that the bytes of an ELF file are, under this name; 0 where they are none.

        The bytes must be kept until it is loaded.
        """
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        return self.bpf_object__open_mem(elf, len(elf), ctypes.byref(options)) or 0

    def refusal(self, what: str) -> AccessError:
        """Return the error that says why `what` failed: in libbpf's first words, and the kernel's errno."""
        number = ctypes.get_errno()
        said, self._said, self._said_bytes = self._said, [], 0
        for line in said:
            log.debug("libbpf: %s", line)
        if number in (errno.EPERM, errno.EACCES) and not any(_LOG in line for line in said):
            return AccessError(f"{what}: it takes CAP_BPF and CAP_PERFMON, or root ({os.strerror(number)})")
        first = next((line for line in said if line), "")
        return AccessError(f"{what}: {first or os.strerror(number)}{_reason(said)}")

    # A va_list is passed by reference on x86-64 and on arm64, so vsnprintf(3) can have it as it came.
    def _collect(self, level: int, text: int, arguments: int) -> int:
        if level == _WARN and self._said_bytes < _SAID_BYTES_MAX:
            line = ctypes.create_string_buffer(_LINE_BYTES_MAX)
            self._libc.vsnprintf(line, ctypes.c_size_t(_LINE_BYTES_MAX), _P(text), _P(arguments))
            said = line.value.decode(errors="replace").removeprefix("libbpf: ").rstrip()[-_LINE_BYTES_KEPT:]
            self._said_bytes += len(said)
            self._said.append(said)
        return 0


# The verifier's last words but for its sums, and what no word of its says: that the kernel is locked down.
def _reason(said: list[str]) -> str:
    logs = [line.splitlines()[:-1] for line in said if line.endswith(f"-- END {_LOG} --")]
    words = [line for lines in logs for line in lines if not line.startswith("processed ") and _LOG not in line]
    if not words:
        return ""
    with contextlib.suppress(OSError):
        if "[confidentiality]" in _LOCKDOWN.read_text(encoding="ascii"):
            return f" ({words[-1]}); the kernel is locked down, so that no program may read its memory ({_LOCKDOWN})"
    return f" ({words[-1]})"


@functools.cache
def load() -> Libbpf:
    """Return the library.

    Raises:
        AccessError: it is not installed, or too old.
    """
    return Libbpf()
