"""Which guests there are and where each one's port comes out on the host: from flags, a folder, or libvirt's XML.

Source of the XML: https://libvirt.org/formatdomain.html, `<channel type='unix'>` with a virtio target.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

from schemas import bounds
from schemas.errors import UsageError

#: Guests of one relay.
VMS_MAX: Final = 1024
#: The port's name in the guest, as the examples have it.
PORT_NAME: Final = "org.hypocenter.0"
_SOCKET_SUFFIX: Final = ".sock"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Vm(NamedTuple):
    """One guest: `machine` is what its streams are stamped with."""

    name: str
    uuid: str
    socket: Path

    @property
    def machine(self) -> str:
        """The uuid where it is known, else the name."""
        return self.uuid or self.name


def parse(text: str) -> Vm:
    """Return the guest that `NAME=SOCKET[,uuid=UUID]` describes.

    Raises:
        UsageError: it is another text.
    """
    name, equals, rest = text.partition("=")
    path, *options = rest.split(",")
    values = dict(option.partition("=")[::2] for option in options)
    if not equals or not path or set(values) - {"uuid"} or len(values) < len(options) or not all(values.values()):
        raise UsageError(f"--vm is NAME=SOCKET or NAME=SOCKET,uuid=UUID, not {text!r:.100}")
    return _vm(name, values.get("uuid", ""), Path(path), "--vm")


def in_folder(folder: Path) -> list[Vm]:
    """Return a guest for each NAME.sock in `folder`.

    Raises:
        UsageError: the folder cannot be read, or a name is no name of a machine.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as e:
        raise UsageError(f"--vm-dir {folder}: {e.strerror}") from None
    found = [path for path in paths if path.suffix == _SOCKET_SUFFIX]
    return [_vm(path.stem, "", path, f"--vm-dir {folder}") for path in found]


def in_xml(path: Path) -> list[Vm]:
    """Return the guests that libvirt's description in `path` has, or those of every *.xml there, with their uuids.

    Raises:
        UsageError: it cannot be read, or is no description of a domain.
    """
    try:
        files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
        return [vm for each in files for vm in _domain(each)]
    except OSError as e:
        raise UsageError(f"--libvirt-xml {path}: {e.strerror}") from None


def _domain(path: Path) -> list[Vm]:
    try:
        domain = ET.parse(path).getroot()  # noqa: S314 - see above
    except ET.ParseError as e:
        raise UsageError(f"--libvirt-xml {path}: no XML: {e}") from None
    name, uuid = domain.findtext("name", "").strip(), domain.findtext("uuid", "").strip().lower()
    if domain.tag != "domain" or not name:
        raise UsageError(f"--libvirt-xml {path}: no description of a domain with a name")
    for channel in domain.iterfind("devices/channel[@type='unix']"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == PORT_NAME and source.get("path"):
            return [_vm(name, uuid, Path(source.get("path", "")), f"--libvirt-xml {path}")]
    return []


def _vm(name: str, uuid: str, socket: Path, where: str) -> Vm:
    rule = bounds.tag()
    if not rule.allows(name):
        raise UsageError(f"{where}: a guest's name is {rule.says}")
    if uuid and not _UUID.fullmatch(uuid):
        raise UsageError(f"{where}: uuid is 32 hex digits with dashes between, not {uuid!r:.60}")
    return Vm(name, uuid, socket)


def together(vms: list[Vm]) -> list[Vm]:
    """Return `vms`, which one relay can serve.

    Raises:
        UsageError: two are called the same or lie at one socket, or they are too many.
    """
    for what in ("name", "machine", "socket"):
        seen = [getattr(vm, what) for vm in vms]
        twice = next((each for each in seen if seen.count(each) > 1), None)
        if twice is not None:
            raise UsageError(f"two guests have the {what} {twice}")
    if len(vms) > VMS_MAX:
        raise UsageError(f"{len(vms)} guests, a relay serves {VMS_MAX}")
    return vms
