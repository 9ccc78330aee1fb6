"""The agent in a guest, as the one file it is there: run by a bare interpreter, shipping through the guest's port."""

import itertools
import re
import sys
from pathlib import Path

PORT = "org.hypocenter.0"
#: The distribution's own where it is new enough: that starts in half the time.
PYTHON = next(iter(sorted(Path("/usr/bin").glob("python3.1[1-9]"))), Path(sys.executable).resolve())
_WAIT_S_MAX = 120
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_numbers = itertools.count()


class GuestAgent:
    """Runs the file `vm.bundle` in the guest `vm` with its spool in `spool`; on its way once this returns."""

    def __init__(self, vm, spool, *words):
        self._vm = vm
        self._at = f"/run/agent-{next(_numbers)}"
        port = f"/dev/virtio-ports/{PORT}"
        command = f"{PYTHON} -I -S {vm.bundle} run --relay {port} --spool {spool} {' '.join(words)}"
        vm.run(
            f"mkdir {self._at}; cd {self._at}; exec >/dev/null\n"
            f"(ulimit -n 4096; {command} >said 2>&1 & echo $! >pid; wait $!; echo $? >code) &\n"
        )

    def said(self, pattern):
        """Wait until it or its child printed `pattern`, in the regular expressions of grep -E."""
        self._vm.run(
            f"cd {self._at}\n"
            f"for i in {{1..{_WAIT_S_MAX * 10}}}; do grep -Eq '{pattern}' said && exit; [ -e code ] && break; sleep 0.1; done\n"
            f"echo never said: {pattern}; cat said; exit 1"
        )

    def stop(self):
        """Ask it to end and return its exit code."""
        done = self._vm.run(
            f"cd {self._at}; kill $(cat pid)\n"
            f"for i in {{1..{_WAIT_S_MAX * 10}}}; do [ -e code ] && break; sleep 0.1; done; cat code"
        )
        return int(done)

    def story(self):
        return self._vm.run(f"cat {self._at}/said")


def boot_id(vm):
    """Return which boot of the guest this is."""
    return vm.run("cat /proc/sys/kernel/random/boot_id").strip()


def log_records(vm, tag, numbers):
    """Write records that carry `tag` to the guest's kernel log."""
    vm.run(
        "echo on >/proc/sys/kernel/printk_devkmsg\n"
        f'for i in {{{numbers[0]}..{numbers[-1]}}}; do echo "<14>{tag} $i" >/dev/kmsg; done'
    )


def kernel_log(vm):
    """Return the kernel log of a guest as a reader that is not the agent finds it: texts by sequence number."""
    data = vm.try_run("dd if=/dev/kmsg bs=8k iflag=nonblock status=none 2>/dev/null").output
    found = re.findall(rb"^\d+,(\d+),\d+,[^;\n]*;(.*)$", data, re.MULTILINE)
    return {int(seq): _ESCAPED.sub(lambda code: bytes([int(code[1], 16)]), text).decode() for seq, text in found}
