"""Who this machine is: machine-id(5), the kernel's boot id (random(4)), and whether a hypervisor is below."""

import socket
from pathlib import Path

from schemas.stream import Layer


def machine_id(root: Path = Path("/")) -> str:
    """Return the content of /etc/machine-id, else the host name."""
    try:
        text = (root / "etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        text = ""
    return text or socket.gethostname()


def boot_id(root: Path = Path("/")) -> str:
    """Return the kernel's random id of this boot, 36 characters."""
    return (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kernel_layer(root: Path = Path("/")) -> str:
    """Return the layer of this kernel: a guest's where the CPU announces a hypervisor, else the host's."""
    cpuinfo = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    flags = {flag for line in cpuinfo.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    product = root / "sys/class/dmi/id/sys_vendor"
    vendor = product.read_text(encoding="utf-8", errors="replace") if product.exists() else ""
    virtual = "hypervisor" in flags or any(name in vendor for name in ("QEMU", "Amazon EC2", "Google", "VMware"))
    return Layer.GUEST_KERNEL if virtual else Layer.HOST
