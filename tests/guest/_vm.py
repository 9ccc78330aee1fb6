"""A virtual machine for a test: boots in seconds without hardware virtualisation, runs commands, is gone at the end.

Its console goes to a file, which QEMU always drains: an unread one makes the guest's printk crawl. QMP and the port of
commands are socket pairs: no path can be too long, and nobody else can take them. Source: qemu(1), qemu-qmp-ref(7).
"""

import base64
import collections
import contextlib
import itertools
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.guest import _image

#: Both far above what they take: a machine that does much else beside is no failure.
BOOT_S_MAX = RUN_S_MAX = 180.0
EVENTS_MAX = 10_000
OUTPUT_BYTES_MAX = 256 << 20
#: One printk clock on all CPUs, and CPU 1 for whoever asks for it: so a test can freeze it and the guest still answers.
#: A kernel that counts its timer's ticks while the host has no CPU for it takes the timer for broken, and panics.
_APPEND = "console=ttyS0 quiet tsc=reliable no_timer_check irqaffinity=0 isolcpus=1"


class Done(NamedTuple):
    """A command's end: its exit code, and what it printed to stdout and stderr."""

    code: int
    output: bytes

    @property
    def text(self):
        return self.output.decode(errors="replace")


class Vm:
    """A guest with two CPUs, its files in `folder`, this machine's files read-only, and /run and /mnt of its own.

    `ports` maps names of virtio ports to the paths of sockets that QEMU listens on; `arguments` are more of QEMU's own.

    `in_turns`: its CPUs share one thread of QEMU's, for guests that trace, though none of them can be frozen alone then.
    Where each has its own, QEMU 7.2 may go on with an instruction that another CPU has patched since: the `int3` that
    the kernel puts there meanwhile then comes again and again, as a soft lockup.
    """

    def __init__(
        self,
        folder,
        kernel,
        memory_mib=512,
        name="hypocenter-test",
        ports=None,
        append="",
        arguments=(),
        modules=(),
        in_turns=False,
    ):
        self.folder = Path(folder)
        self.console_path, self._said_path = self.folder / "console.log", self.folder / "qemu.err"
        image = _image.make(self.folder, kernel, modules)
        threads = "single" if in_turns else "multi"
        qmp, far_qmp = socket.socketpair()
        self._commands, far_commands = socket.socketpair()
        command = [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
            *("-name", f"{name},debug-threads=on", "-nodefaults", "-no-user-config", "-display", "none"),
            *(
                "-machine",
                "q35",
                "-accel",
                f"tcg,thread={threads}",
                "-cpu",
                "qemu64",
                "-smp",
                "2",
                "-m",
                f"{memory_mib}M",
            ),
            *("-kernel", kernel.vmlinux, "-initrd", image, "-append", f"{_APPEND} {append}"),
            *("-chardev", f"file,id=console,path={self.console_path}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=qmp,fd={far_qmp.fileno()}", "-mon", "chardev=qmp,mode=control"),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot", "-device", "virtio-serial-pci"),
            *_port(_image.COMMAND_PORT, f"fd={far_commands.fileno()}"),
            *itertools.chain.from_iterable(
                _port(name, f"path={path},server=on,wait=off") for name, path in (ports or {}).items()
            ),
            *arguments,
        ]
        with self._said_path.open("wb") as said, far_qmp, far_commands:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=(far_qmp.fileno(), far_commands.fileno()),
            )
        self.qmp = Qmp(qmp)
        self._answers = self._commands.makefile("rb")
        self._numbers = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it; idempotent. No disk of it outlives it, so nothing is asked."""
        self.process.kill()
        self.process.wait()
        self.qmp.close()
        self._answers.close()
        self._commands.close()

    def booted(self):
        """Wait until it takes commands; return self."""
        with self._patience(BOOT_S_MAX, "to boot"):
            self.qmp.greet(BOOT_S_MAX)
            assert self._answers.readline() == b"ready\n"
        return self

    def reset(self):
        """Do what the button of a real machine does, and wait until it takes commands again."""
        with self._patience(BOOT_S_MAX, "to boot again"):
            self.qmp.command("system_reset")
            assert self._answers.readline() == b"ready\n"

    def run(self, script, timeout_s=RUN_S_MAX):
        """Run `script` in bash as root; return what it printed. What it leaves in the background must print elsewhere."""
        done = self.try_run(script, timeout_s)
        assert done.code == 0, f"exit code {done.code} in the guest: {script}\n{done.text[-20_000:]}\n{self.story()}"
        return done.text

    def try_run(self, script, timeout_s=RUN_S_MAX):
        """As `run`, whatever its exit code; return code and output."""
        number = next(self._numbers)
        line = f"{number} {base64.b64encode(script.encode()).decode()}\n"
        with self._patience(timeout_s, script):
            self._commands.sendall(line.encode())
            head = self._answers.readline().split()
            assert head and int(head[0]) == number, f"no answer to command {number}: {head}"
            size_bytes = int(head[2])
            assert size_bytes <= OUTPUT_BYTES_MAX
            return Done(int(head[1]), self._answers.read(size_bytes))

    def story(self):
        """Return what QEMU said, and the end of the console."""
        console = self.console_path.read_text(errors="replace") if self.console_path.exists() else ""
        return f"QEMU: {self._said_path.read_text()}\nconsole:\n{console[-4000:]}"

    # A socket's timeout spoils the file made of it, so it is the guest's end too.
    @contextlib.contextmanager
    def _patience(self, timeout_s, what):
        self._commands.settimeout(timeout_s)
        try:
            yield
        except (TimeoutError, AssertionError, OSError) as e:
            self.close()
            raise AssertionError(f"the guest failed within {timeout_s:g} s: {what}: {e!r}\n{self.story()}") from e


class Qmp:
    """QEMU's monitor. `events` are those that came so far, the newest EVENTS_MAX."""

    def __init__(self, connected):
        self._socket, self._file = connected, connected.makefile("rb")
        self.events = collections.deque(maxlen=EVENTS_MAX)

    def greet(self, timeout_s):
        self._socket.settimeout(timeout_s)
        assert "QMP" in json.loads(self._file.readline() or "{}"), "QEMU ended"
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        """Return what QEMU answers."""
        self._socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            said = self._read()
            if "error" in said:
                raise AssertionError(f"QMP {name}: {said['error']}")
            if "return" in said:
                return said["return"]

    def event(self, name, timeout_s=30.0):
        """Wait for an event and return it, with what came before in `events`."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := [each for each in self.events if each["event"] == name]):
            assert time.monotonic() < deadline_s, f"no {name}"
            self._read()
        return found[-1]

    def _read(self):
        line = self._file.readline()
        assert line, "QEMU ended"
        said = json.loads(line)
        if "event" in said:
            self.events.append(said)
        return said

    def close(self):
        self._file.close()
        self._socket.close()


def _port(name, where):
    return (
        *("-chardev", f"socket,id={name},{where}"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    )
