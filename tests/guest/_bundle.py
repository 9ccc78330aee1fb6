"""The agent's one file, made from this checkout where guests see it."""

import subprocess
import sys

from tests.guest._python import ROOT


def make(folder):
    path = folder / "hypocenter-agent.pyz"
    subprocess.run(
        [sys.executable, ROOT / "deploy" / "bundle" / "bundle.py", path], check=True, stdout=subprocess.DEVNULL
    )
    return path
