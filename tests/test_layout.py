"""The rules of the tree: who may import whom, where a surface lives, how long a file may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import consumers
import producers
import schemas
from consumers.cli import VERBS, parser
from producers.cli import parser as agent_parser
from schemas.surfaces import SURFACES, TOPICS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "producers", "consumers")
FORBIDDEN = {
    "schemas": {"producers", "consumers", "pyarrow", "kafka", "duckdb", "numpy"},
    "producers": {"consumers", "pyarrow", "duckdb", "numpy"},
    "consumers": {"producers"},
}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package):
    bad = [(str(path), name) for path in sources(package) for name in imports(path) if name in FORBIDDEN[package]]
    assert not bad


def test_an_agent_without_kafka_loads_no_kafka_client():
    code = "import sys, producers.cli, producers.kmsg; print([m for m in sys.modules if m.split('.')[0] in ('kafka', 'pyarrow')])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        == "[]\n"
    )


@pytest.mark.parametrize("module", [schemas, producers, consumers])
def test_the_plain_package_names_resolve_inside_this_tree(module):
    assert Path(module.__file__).parent.parent == ROOT


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_is_one_file_on_each_side_and_one_row(name):
    module, room = name.replace("-", "_"), SURFACES[name].part_of
    places = [f"{module}.py", f"{module}/source.py", f"{room}/{name.removeprefix(f'{room}-')}.py"]
    assert len([place for place in places if (ROOT / "producers" / place).exists()]) == 1
    assert (ROOT / "consumers" / "decode" / f"{module}.py").exists()
    assert SURFACES[name].topic in TOPICS


def test_files_fit_a_head():
    long = [
        (str(p), n) for package in PACKAGES for p in sources(package) if (n := len(p.read_text().splitlines())) > 400
    ]
    assert not long


def test_every_module_says_what_it_is():
    silent = [
        str(p) for package in PACKAGES for p in sources(package) if not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent


def test_every_test_file_mirrors_a_module():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        relative = path.relative_to(ROOT / "tests")
        # What is about the tree, or about the whole of it at work, mirrors no single module.
        if len(relative.parts) == 1 or relative.parts[0] in ("pipeline", "guest"):
            continue
        mirrored = ROOT / relative.parent / relative.name.removeprefix("test_")
        # Under deploy/ a folder is one thing.
        if relative.parts[0] == "deploy":
            mirrored = mirrored.with_suffix("")
        program = mirrored.with_name(mirrored.stem.replace("_", "-") + ".bpf.c")
        assert mirrored.exists() or program.exists(), f"{relative} mirrors nothing"


def test_no_broad_except_outside_the_outermost_loops():
    allowed = {"producers/agent.py", "producers/writer.py"}
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    }
    assert found <= allowed


def test_the_readme_names_every_verb_and_flag():
    readme = (ROOT / "README.md").read_text()
    for verb in VERBS:
        assert re.search(rf"hypocenter {verb}\b", readme), f"README lacks `hypocenter {verb}`"
        for flag in _flags(parser(verb), verb):
            assert flag in readme, f"README lacks {flag} of `hypocenter {verb}`"
    for verb in ("run", "relay", "check"):
        assert f"hypocenter-agent {verb}" in readme
        for flag in _flags(agent_parser(), verb):
            assert flag in readme, f"README lacks {flag} of `hypocenter-agent {verb}`"


def _flags(parser, verb):
    verbs = next(action for action in parser._actions if hasattr(action, "choices") and action.choices)
    return [flag for action in verbs.choices[verb]._actions for flag in action.option_strings if flag.startswith("--")]
