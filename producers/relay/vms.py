"""Which guests there are and where each one's port comes out on the host: from flags, a folder, or libvirt's XML.

Source of the XML: https://libvirt.org/formatdomain.html, `<channel type='unix'>` with a virtio target, and `<vsock>`.
What libvirt keeps of a domain that runs, in /run/libvirt/qemu, has the same `<domain>` inside of a `<domstatus>`.
"""

import re
from collections import Counter
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
_LISTEN: Final = "listen:"
_CID: Final = "cid:"
_WORD: Final = re.compile(r"\w+:")
#: CIDs of guests: what is below is the hypervisor, this machine itself and its own host, the highest is any. vsock(7).
CID_MIN: Final = 3
CID_MAX: Final = (1 << 32) - 2


class Connect(NamedTuple):
    """The relay connects to the UNIX socket `at`, where the guest's VMM listens: QEMU's chardevs."""

    at: Path


class Listen(NamedTuple):
    """The relay listens on the UNIX socket `at`, to which the guest's VMM connects: vsocks in user space."""

    at: Path


class Vsock(NamedTuple):
    """The guest has the CID `at`, and connects to the relay's port through this kernel."""

    at: int


Way = Connect | Listen | Vsock


class Vm(NamedTuple):
    """One guest: `machine` is what its streams are stamped with; it has one way to the relay."""

    name: str
    uuid: str
    way: Way

    @property
    def machine(self) -> str:
        """The uuid where it is known, else the name."""
        return self.uuid or self.name


def parse(text: str) -> Vm:
    """Return the guest that `NAME=WHERE[,uuid=UUID]` describes; WHERE is `SOCKET`, `listen:SOCKET` or `cid:NUMBER`.

    Raises:
        UsageError: it is another text.
    """
    name, equals, rest = text.partition("=")
    where, *options = rest.split(",")
    values = dict(option.partition("=")[::2] for option in options)
    way = _way(where)
    if not equals or way is None or set(values) - {"uuid"} or len(values) < len(options) or not all(values.values()):
        raise UsageError(f"--vm is NAME=SOCKET, NAME=listen:SOCKET or NAME=cid:N, then ,uuid=UUID, not {text!r:.100}")
    return _vm(name, values.get("uuid", ""), way, "--vm")


def _way(where: str) -> Way | None:
    if where.startswith(_CID):
        return _vsock(where.removeprefix(_CID))
    path = where.removeprefix(_LISTEN)
    # A word in front that is no way is a slip of the pen: it would be tried for ever as a path. Such a path is `./a:b`.
    if not path or _WORD.match(path):
        return None
    return Connect(Path(path)) if path == where else Listen(Path(path))


def _vsock(number: str) -> Vsock | None:
    cid = int(number) if number.isascii() and number.isdigit() and len(number) < len(str(CID_MAX)) + 1 else 0
    return Vsock(cid) if CID_MIN <= cid <= CID_MAX else None


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
    return [_vm(path.stem, "", Connect(path), f"--vm-dir {folder}") for path in found]


def in_xml(path: Path, *, vsock: bool = False) -> list[Vm]:
    """Return the guests that libvirt's description in `path` has, or those of every *.xml there, with their uuids.

    A domain without a channel of ours is a guest where it has a CID, if `vsock`.

    Raises:
        UsageError: it cannot be read, or is no description of a domain.
    """
    try:
        files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
        return [vm for each in files for vm in _domain(each, vsock=vsock)]
    except OSError as e:
        raise UsageError(f"--libvirt-xml {path}: {e.strerror}") from None


def _domain(path: Path, *, vsock: bool) -> list[Vm]:
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - see above
    except ET.ParseError as e:
        raise UsageError(f"--libvirt-xml {path}: no XML: {e}") from None
    domain = root.find("domain") if root.tag == "domstatus" else root
    name, uuid = ("", "") if domain is None else (domain.findtext(tag, "").strip() for tag in ("name", "uuid"))
    if domain is None or domain.tag != "domain" or not name:
        raise UsageError(f"--libvirt-xml {path}: no description of a domain with a name")
    way = _channel(domain) or (_cid(domain) if vsock else None)
    return [_vm(name, uuid.lower(), way, f"--libvirt-xml {path}")] if way else []


def _channel(domain: "ET.Element") -> Connect | None:
    for channel in domain.iterfind("devices/channel[@type='unix']"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == PORT_NAME and source.get("path"):
            return Connect(Path(source.get("path", "")))
    return None


# Libvirt draws a number only when it starts a domain: of one that does not run there may be none.
def _cid(domain: "ET.Element") -> Vsock | None:
    cid = domain.find("devices/vsock/cid")
    return None if cid is None else _vsock(cid.get("address", ""))


def _vm(name: str, uuid: str, way: Way, where: str) -> Vm:
    rule = bounds.tag()
    if not rule.allows(name):
        raise UsageError(f"{where}: a guest's name is {rule.says}")
    if uuid and not _UUID.fullmatch(uuid):
        raise UsageError(f"{where}: uuid is 32 hex digits with dashes between, not {uuid!r:.60}")
    return Vm(name, uuid, way)


def together(vms: list[Vm]) -> list[Vm]:
    """Return `vms`, which one relay can serve.

    Raises:
        UsageError: two are called the same or have one way, or they are too many.
    """
    for what, seen in (
        ("name", [vm.name for vm in vms]),
        ("machine", [vm.machine for vm in vms]),
        ("way", [str(vm.way.at) for vm in vms]),
    ):
        twice = next((each for each, times in Counter(seen).items() if times > 1), None)
        if twice is not None:
            raise UsageError(f"two guests have the {what} {twice}")
    if len(vms) > VMS_MAX:
        raise UsageError(f"{len(vms)} guests, a relay serves {VMS_MAX}")
    return vms
