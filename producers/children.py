"""How the agent starts programs of its own: as modules, or out of the archive that it runs from itself."""

import importlib
import sys
import zipimport
from pathlib import Path
from typing import Final

_CHILD: Final = "--child="
_AGENT: Final = "producers.cli"


def command(module: str, *args: str) -> list[str]:
    """Return the command that runs `main` of `module`, by the interpreter of this process."""
    loader = __spec__.loader if __spec__ else None
    if not isinstance(loader, zipimport.zipimporter):
        return [sys.executable, "-m", module, *args]
    flags = [flag for flag, given in (("-I", sys.flags.isolated), ("-S", sys.flags.no_site)) if given]
    return [sys.executable, *flags, str(Path(loader.archive).absolute()), f"{_CHILD}{module}", *args]


def run() -> int:
    """Run what the command line of an archive asks for: a child of the agent's, or the agent; return its exit code."""
    module = _AGENT
    if sys.argv[1:] and sys.argv[1].startswith(_CHILD):
        module = sys.argv.pop(1).removeprefix(_CHILD)
    code: int = importlib.import_module(module).main()
    return code
