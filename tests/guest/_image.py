"""The initramfs of a guest: busybox, the modules, and an init that runs the host's own files, read-only over 9p.

A command comes over a virtio port of its own as one line, a number and the command in base64; its answer is a line
with that number, exit code and size, and the output. Nothing of it touches the console, which may be loud.
"""

import shutil
import subprocess
from pathlib import Path

COMMAND_PORT = "tests.command"
MODULES = (
    *("virtio_pci", "virtio_console", "virtio_blk", "9pnet_virtio", "9p", "vmw_vsock_virtio_transport"),
    *("ext4", "loop", "ramoops", "pvpanic-pci"),
)
_INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /newroot
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
while read -r module; do $bb insmod /modules/$module 2>/dev/null; done </modules/order
$bb mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose hostroot /newroot || echo no 9p
cd /newroot
$bb mount -t proc proc proc
$bb mount -t sysfs sysfs sys
$bb mount -t devtmpfs devtmpfs dev
$bb mount -t tmpfs tmpfs run
$bb mount -t tmpfs tmpfs mnt
$bb mount -t tracefs tracefs sys/kernel/tracing
$bb mount -t debugfs debugfs sys/kernel/debug
$bb mount -t pstore pstore sys/fs/pstore
$bb mount -t cgroup2 cgroup2 sys/fs/cgroup
$bb mkdir -p run/tmp dev/virtio-ports
export TMPDIR=/run/tmp PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
$bb ip link set lo up
for port in /sys/class/virtio-ports/*; do
  $bb ln -s ../${port##*/} dev/virtio-ports/$($bb cat $port/name)
done
serve() {
  while read -r number command; do
    echo "$command" | $bb base64 -d >run/command
    $bb chroot . /bin/bash /run/command >run/answer 2>&1 </dev/null
    code=$?
    { echo "$number $code $($bb stat -c %s run/answer)"; $bb cat run/answer; } >&3
  done
}
# The first process must not end, whatever becomes of this one.
while :; do
  ( exec 3<>dev/virtio-ports/PORT && echo ready >&3 && serve <&3 ) &
  wait $!
  $bb sleep 1
done
"""


def make(folder, kernel, modules=()):
    """Write the initramfs into `folder`, with these modules beside those of every guest; return its path."""
    tree = Path(folder) / "initramfs"
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    init = tree / "init"
    init.write_text(_INIT.replace("PORT", COMMAND_PORT))
    init.chmod(0o755)
    paths = kernel.modules((*MODULES, *modules))
    for path in paths:
        shutil.copy(path, tree / "modules")
    (tree / "modules" / "order").write_text("".join(f"{path.name}\n" for path in paths))
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    image = tree.with_suffix(".cpio")
    with image.open("wb") as file:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=names.encode(), stdout=file, check=True)
    return image
