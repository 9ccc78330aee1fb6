"""README tells the truth where a program can check it: keys, defaults, flags, exit codes, targets, examples."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from consumers.cli import VERBS, parser
from producers.cli import parser as agent_parser
from schemas import errors, toml_config
from schemas.config import BpfPinned, BpfProgram, Config, TraceSet, Vm
from schemas.kafka_config import KafkaConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
#: Flags that are not called as their keys are.
FLAGS = {
    "agent.surfaces": "--surface",
    "agent.for_s": "--for",
    "log.dir": "--log",
    "ftrace.sets": "--events",
    "bpf.programs": "--program",
    "bpf.pinned": "--pinned",
    "filters": "--filter",
    "buffer_kib_per_cpu": "--buffer-kib",
    "vms.machines": "--qmp",
    "spool.dir": "--spool",
    "kafka.bootstrap": "--kafka",
}
#: Flags of these verbs that say what this one call does, and have no key.
CALLS = {"--help", "--config", "--verbose", "--until-end", "--json"}


def rows(first_heading):
    table = re.search(rf"^\| {first_heading} \|.*?(?=\n\n|\Z)", README, re.DOTALL | re.MULTILINE)[0]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in table.strip().splitlines()[2:]
    ]


def keys():
    """Return every key of the configuration with its default."""
    config = Config(kafka=KafkaConfig("h:1"))
    return {
        f"{table.name}.{item.name}": getattr(getattr(config, table.name), item.name)
        for table in dataclasses.fields(config)
        for item in dataclasses.fields(getattr(config, table.name))
    }


KEYS = {row[0].strip("`"): row for row in rows("key")}
#: Of one table of `[[ftrace.sets]]`, of `[[bpf.programs]]`, `[[bpf.pinned]]` and `[[vms.machines]]`.
SET_KEYS = {row[0].strip("`"): row for row in rows("key of a set")}
PROGRAM_KEYS = {row[0].strip("`"): row for row in rows("key of a program")}
PINNED_KEYS = {row[0].strip("`"): row for row in rows("key of a pinned ring")}
VM_KEYS = {row[0].strip("`"): row for row in rows("key of a VM")}


def test_every_key_is_there_and_no_other():
    assert set(KEYS) == set(keys())


@pytest.mark.parametrize("name", sorted(set(keys()) - {"kafka.bootstrap"}))
def test_a_default_is_what_the_readme_says(name):
    default, said = keys()[name], KEYS[name][2].strip("`")
    if default is None or default == ():
        # Words about what happens then.
        assert re.fullmatch(r"[^0-9]+", said)
    elif isinstance(default, bool):
        assert said == str(default).lower()
    elif isinstance(default, tuple):
        assert said == str(list(default)).replace("'", '"')
    elif isinstance(default, (int, float)):
        assert float(said) == default
    else:
        assert said == str(default)


@pytest.mark.parametrize(
    ("cls", "table"),
    [(TraceSet, SET_KEYS), (BpfProgram, PROGRAM_KEYS), (BpfPinned, PINNED_KEYS), (Vm, VM_KEYS)],
    ids=["set", "program", "pinned", "vm"],
)
def test_every_key_of_a_table_of_several_is_there_with_its_default(cls, table):
    defaults = {item.name: item.default for item in dataclasses.fields(cls)}
    assert set(table) == set(defaults)
    for name, default in defaults.items():
        said = table[name][2].strip("`")
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert re.fullmatch(r"[^0-9]+", said) if default in (None, (), "") else said == shown


@pytest.mark.parametrize("name", sorted(keys()))
def test_a_unit_in_a_key_is_the_one_in_the_table(name):
    units = {"s": "seconds", "ms": "ms", "bytes": "bytes", "hours": "hours", "rows": "rows"}
    words = name.removesuffix("_max").rpartition("_")[2]
    wanted = units.get(words) or ("path" if KEYS[name][3] == "path" else "")
    assert KEYS[name][3] == wanted


def flags(parser_, verb):
    verbs = next(action for action in parser_._actions if isinstance(action.choices, dict))
    return [action for action in verbs.choices[verb]._actions if action.option_strings]


@pytest.mark.parametrize(
    ("top", "verb"),
    [(agent_parser(), "run"), (parser("collect"), "collect"), (parser("alert"), "alert")],
    ids=["run", "collect", "alert"],
)
def test_every_flag_of_a_service_has_its_key_and_names_it(top, verb):
    for action in flags(top, verb):
        flag = action.option_strings[-1]
        if flag in CALLS:
            continue
        key = re.search(r"\[([\w.]+)\]$", action.help)[1]
        table = KEYS if "." in key else SET_KEYS | PINNED_KEYS
        assert flag == FLAGS.get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
        assert table[key][1] == f"`{flag}`"


def test_every_flag_that_a_key_claims_exists():
    existing = {
        option
        for action in [
            *flags(agent_parser(), "run"),
            *flags(parser("collect"), "collect"),
            *flags(parser("alert"), "alert"),
        ]
        for option in action.option_strings
    }
    assert {row[1].strip("`") for row in KEYS.values()} - {""} <= existing


def test_the_exit_codes_are_those_of_the_errors():
    found = {each.exit_code for each in vars(errors).values() if isinstance(each, type)}
    documented = {int(row[0]) for row in rows("code")}
    assert found <= documented
    assert documented - found == {0, 130}
    for help_text in (parser().format_help(), agent_parser().format_help()):
        listed = re.findall(r"^  (\d+) ", help_text, re.MULTILINE)
        assert {int(code) for code in listed} <= documented


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_the_toml_examples_load(tmp_path):
    examples = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    loaded = []
    for text in examples:
        (tmp_path / "x.toml").write_text(text)
        loaded.append(toml_config.load(tmp_path / "x.toml", Config))
    traced, programs, host, shipped = loaded
    assert [each.name for each in traced.ftrace.sets] == ["sched", "rest"]
    assert [each.name for each in programs.bpf.programs] == ["sched-delay"]
    assert [each.named for each in programs.bpf.pinned] == ["events"]
    assert [each.pid for each in host.vms.machines] == [4099]
    assert shipped.kafka.security_protocol == "SASL_SSL"


@pytest.mark.parametrize("command", re.findall(r"^(hypocenter(?:-agent)? .*)$", README, re.MULTILINE))
def test_a_command_that_is_shown_parses(command):
    program, verb, *rest = shlex.split(command.removesuffix("&"))
    top = agent_parser() if program == "hypocenter-agent" else parser(verb)
    assert top.parse_args([verb, *rest]).verb == verb


def test_an_example_that_runs_the_agent_collects_before_it_asks():
    asking = re.compile(r"^hypocenter (?:query|losses|audit|clocks|timeline|incidents|export) .*", re.MULTILINE)
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    shown = [block for block in blocks if "hypocenter-agent run " in block and asking.search(block)]
    assert len(shown) > 5
    for block in shown:
        before = block[: asking.search(block).start()]
        assert re.search(r"^hypocenter collect .*", before, re.MULTILINE), block
        # What goes on in the background has committed nothing yet when the next line runs.
        assert "--until-end" in before or re.search(r"^sleep \d+", before, re.MULTILINE), block


def documents():
    return [path for path in ROOT.rglob("*.md") if not {".venv", ".cache", "var"} & set(path.relative_to(ROOT).parts)]


def test_every_document_that_is_linked_exists():
    for path in documents():
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_every_file_that_a_document_names_is_there():
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    for document in documents():
        for name in re.findall(r"`([\w./*-]+\.(?:py|md|c|h|toml|yml|sh))`", document.read_text()):
            if "NAME" in name or name.startswith("/"):
                continue
            assert any(path.match(name) for path in files), f"{document}: {name}"


def test_every_heading_that_a_document_links_to_is_there():
    for document in documents():
        text = document.read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors, document


def test_the_architecture_names_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for package in ("producers", "consumers"):
        for path in (ROOT / package).iterdir():
            if path.is_dir() and path.name != "__pycache__":
                assert f"`{package}/{path.name}/`" in text


def test_the_verbs_are_those_of_the_table():
    assert {row[0].strip("`").removeprefix("hypocenter ") for row in rows("command")} == set(VERBS)
