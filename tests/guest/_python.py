"""Programs of this checkout in a guest, which has it and its environment at their own paths, and cannot write there."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"cd {ROOT}; PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1 .venv/bin/python"
