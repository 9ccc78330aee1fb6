"""Makes the agent one file, that any Python from 3.11 on runs and that needs nothing installed: `make guest-bundle`.

A zip archive behind a line that names the interpreter (zipapp of the standard library's documentation). In it are
`schemas`, `producers` with what `make bpf` built, and msgpack without its compiled part, as source and compiled for the
version of Python that made it: another one takes the source. The same sources and Python give the same bytes.
"""

import argparse
import os
import py_compile
import sys
import tempfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "hypocenter-agent.pyz"
_SHEBANG = b"#!/usr/bin/env python3\n"
_BUILT = (".bpf.o", ".so")
_DATE = (1980, 1, 1, 0, 0, 0)
# Any Python can read it, also one that is too old for the rest.
_MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("hypocenter-agent takes Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])

from producers import children

sys.exit(children.run())
"""


def contents() -> dict[str, bytes]:
    """Return what goes into the archive: bytes by name."""
    found = _sources()
    with tempfile.TemporaryDirectory() as folder:
        source, compiled = Path(folder) / "source", Path(folder) / "compiled"
        for name in sorted(name for name in found if name.endswith(".py")):
            source.write_bytes(found[name])
            # To start costs half of what it does otherwise. Nothing in an archive has a time that could be compared.
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), str(compiled), dfile=name, doraise=True, invalidation_mode=mode)
            found[name + "c"] = compiled.read_bytes()
    # Its first word is for any Python.
    del found["__main__.pyc"]
    return found


def _sources() -> dict[str, bytes]:
    found = {"__main__.py": _MAIN.encode()}
    for package in ("schemas", "producers"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix == ".py" or path.name.endswith(_BUILT):
                found[str(path.relative_to(ROOT))] = path.read_bytes()
    msgpack = metadata.distribution("msgpack")
    for file in msgpack.files or ():
        if file.suffix == ".py" or "licenses" in file.parts:
            found[str(file)] = Path(file.locate()).read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    found[f"{project['name']}-{project['version']}.dist-info/METADATA"] = head.encode()
    return found


def make(path: Path) -> tuple[int, int]:
    """Write the archive to `path`; return how many bytes it has, and of how many BPF programs."""
    found = contents()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(_SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(found):
                archive.writestr(zipfile.ZipInfo(name, _DATE), found[name], zipfile.ZIP_DEFLATED, 9)
    part.chmod(0o755)
    part.replace(path)
    return path.stat().st_size, sum(name.endswith(".bpf.o") for name in found)


def main() -> int:
    """Make it where the command line says."""
    parser = argparse.ArgumentParser(description="Make the agent one file.")
    parser.add_argument("path", nargs="?", type=Path, default=ROOT / "dist" / NAME, help="default: dist/" + NAME)
    path = parser.parse_args().path
    size_bytes, programs = make(path)
    print(f"{os.path.relpath(path)}: {size_bytes >> 10} KiB, {programs} BPF programs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
