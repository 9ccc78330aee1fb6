import subprocess
import sys
import zipfile

import pytest

from producers import native


def test_two_libraries_out_of_an_archive_are_two(tmp_path):
    try:
        native.load("ring")
    except OSError as e:
        pytest.skip(str(e))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in native.FOLDER.iterdir():
            if path.suffix == ".so":
                archive.writestr(f"producers/bpf_programs/{path.name}", path.read_bytes())
        archive.writestr("producers/__init__.py", "")
        archive.writestr("producers/native.py", (native.FOLDER.parent / "native.py").read_bytes())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from producers import native;"
        " print(native.load('ring').ring_read, native.load('counter').counter_read)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, tmp_path / "all.zip"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
