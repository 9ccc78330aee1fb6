"""Every program that was built: loaded, attached and run with the two capabilities that the documents name, not as root."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from producers.bpf import program
from tests.producers.bpf._bpf import skip_unless_loadable

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[3]
_RUN = """
import sys
from producers.bpf.program import Program
from schemas.errors import AccessError
try:
    program = Program(sys.argv[1], 4096, {})
    program.attach()
    program.run_own(0.0)
    print(len(program.counts()))
    program.close()
except AccessError as e:
    print(e)
"""


def run_as_nobody(name, *capabilities):
    # This checkout or its Python can lie where only root may look; that right opens nothing of BPF.
    allowed = ",".join(["-all", "+dac_read_search", *(f"+{each}" for each in capabilities)])
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    command += [f"--bounding-set={allowed}", f"--inh-caps={allowed}", f"--ambient-caps={allowed}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _RUN, name], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", program.names())
def test_two_capabilities_suffice_and_one_is_not_enough(name):
    skip_unless_loadable()
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    assert run_as_nobody(name, "bpf", "perfmon").isdigit()
    for one in ("bpf", "perfmon"):
        assert "it takes CAP_BPF and CAP_PERFMON, or root" in run_as_nobody(name, one)


def test_no_program_has_a_name_that_the_table_of_a_pinned_ring_could_have():
    assert [name for name in program.names() if name.startswith("pinned")] == []
