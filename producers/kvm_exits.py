"""How often KVM left the guests of this host, and for what: counts that only grow, while the VM lives.

Of each vCPU QEMU tells them (`query-stats` of qemu-qmp-ref(7), since 7.1). Of a VM in sum they are files of debugfs,
`kvm/PID-FD/NAME` (Documentation/virt/kvm/api.rst and virt/kvm/kvm_main.c of the kernel, kvm_create_vm_debugfs), which
lockdown refuses. Such a file holds the VM while it is open, so none stays open. The names are the kernel's:
kvm_vcpu_stats_desc in arch/x86/kvm/x86.c and arch/arm64/kvm/guest.c.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Final, TypeGuard

from producers import vms
from schemas import limits

#: What both architectures count, then what x86 has, then what arm64 has. Those of the VMM are `io` and `mmio`.
NAMES: Final = (
    "exits", "signal_exits", "io_exits", "mmio_exits", "halt_exits", "irq_exits", "request_irq_exits",
    "irq_window_exits", "nmi_window_exits", "hypercalls", "insn_emulation", "mmio_exit_user", "mmio_exit_kernel",
    "hvc_exit_stat", "wfe_exit_stat", "wfi_exit_stat",
)  # fmt: skip
#: What QEMU is asked.
ARGUMENTS: Final = {"target": "vcpu", "providers": [{"provider": "kvm", "names": list(NAMES)}]}
DEBUGFS: Final = Path("/sys/kernel/debug")
_FOLDERS_MAX: Final = 4096
_FILE_BYTES: Final = 64


def paths_of(answer: Any) -> dict[str, int]:
    """Return which vCPU is at which path of QEMU's object model, by an answer to `query-cpus-fast`."""
    found = {}
    for each in answer[: vms.VCPUS_MAX] if isinstance(answer, list) else ():
        if isinstance(each, dict):
            path, vcpu = each.get("qom-path"), each.get("cpu-index")
            if isinstance(path, str) and isinstance(vcpu, int) and 0 <= vcpu < 1 << 31:
                found[path] = vcpu
    return found


def counts_of(answer: Any, paths: dict[str, int]) -> dict[int, dict[str, int]]:
    """Return the counts of each vCPU by an answer to `query-stats`; none of a QEMU that emulates all."""
    found: dict[int, dict[str, int]] = {}
    for each in answer[: vms.VCPUS_MAX] if isinstance(answer, list) else ():
        if isinstance(each, dict) and isinstance(path := each.get("qom-path"), str) and path in paths:
            stats = each.get("stats")
            pairs = [one for one in stats if isinstance(one, dict)] if isinstance(stats, list) else []
            counts = {str(one.get("name")): one.get("value") for one in pairs}
            known = {name: count for name in NAMES if _is_count(count := counts.get(name))}
            if known:
                found[paths[path]] = known
    return found


class Folders:
    """The folders of VMs in debugfs, wherever that is mounted; none where it is not, or is not ours to read."""

    def __init__(self, debugfs: Path = DEBUGFS) -> None:
        self._kvm = debugfs / "kvm"

    def of_processes(self) -> dict[int, list[Path]]:
        """Return the folders of each process that made a VM; QEMU's makes one."""
        found: dict[int, list[Path]] = {}
        with contextlib.suppress(OSError), os.scandir(self._kvm) as entries:
            for number, entry in enumerate(entries):
                if number >= _FOLDERS_MAX:
                    break
                pid, _, fd = entry.name.partition("-")
                if pid.isdecimal() and fd.isdecimal():
                    found.setdefault(int(pid), []).append(Path(entry.path))
        return found


def told(debugfs: Path = DEBUGFS) -> str:
    """Return whether debugfs tells exits here, and why not."""
    try:
        _number(debugfs / "kvm" / NAMES[0])
    except FileNotFoundError:
        return f"exits of KVM are not read: there is no {debugfs / 'kvm'} (no KVM, or debugfs is not mounted)"
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is no number"
        return f"exits of KVM are not read: {debugfs / 'kvm' / NAMES[0]}: {reason}"
    return "exits of KVM are read from debugfs"


def read(folders: list[Path]) -> dict[str, int]:
    """Return the counts of a VM in sum over its vCPUs, by its folders: without what cannot be read now."""
    sums: dict[str, int] = {}
    for folder in folders:
        for name in NAMES:
            with contextlib.suppress(OSError, ValueError):
                sums[name] = sums.get(name, 0) + _number(folder / name)
    return sums


def _number(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return min(int(os.read(fd, _FILE_BYTES)), limits.INT64_MAX)
    finally:
        os.close(fd)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limits.INT64_MAX
