"""How the agent starts programs of its own: as modules, or out of the archive that it runs from itself."""

import importlib
import os
import sys
import zipimport
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from producers.registry import Identity

_CHILD: Final = "--child="
_AGENT: Final = "producers.cli"


def command(module: str, *args: str) -> list[str]:
    """Return the command that runs `main` of `module`, by the interpreter of this process."""
    loader = __spec__.loader if __spec__ else None
    if not isinstance(loader, zipimport.zipimporter):
        return [sys.executable, "-m", module, *args]
    flags = [flag for flag, given in (("-I", sys.flags.isolated), ("-S", sys.flags.no_site)) if given]
    return [sys.executable, *flags, str(Path(loader.archive).absolute()), f"{_CHILD}{module}", *args]


def shipper_command(log_dir: Path, config_json: str) -> list[str]:
    """Return the command of the child that ships `log_dir` to Kafka."""
    return command("producers.ship", "--log", os.fspath(log_dir), "--config-json", config_json)


def relay_command(log_dir: Path, port: str, identity: "Identity") -> list[str]:
    """Return the command of the child that ships `log_dir` through `port` to the relay on the host."""
    claims = ["--machine", identity.machine, "--boot-id", identity.boot_id, "--layer", identity.layer]
    return command("producers.relay.ship", "--log", os.fspath(log_dir), "--port", port, *claims)


def run() -> int:
    """Run what the command line of an archive asks for: a child of the agent's, or the agent; return its exit code."""
    module = _AGENT
    if sys.argv[1:] and sys.argv[1].startswith(_CHILD):
        module = sys.argv.pop(1).removeprefix(_CHILD)
    code: int = importlib.import_module(module).main()
    return code
