"""`hypocenter triage`: exit codes, both outputs, every kind of file, and standard input."""

import gzip
import io
import json
import sys

import pytest

from consumers.cli import main
from tests.consumers.incidents._logs import CAPTURES, console

VICTIM = str(CAPTURES / "softlockup-victim-ipi-host-freeze.kmsg")
KEYS = [
    "kind",
    "start_lines",
    "cpu",
    "task",
    "pid",
    "duration_s",
    "shape",
    "owner",
    "confidence",
    "row",
    "evidence",
    "missing",
    "corrupted",
]


def triage(capsys, *words):
    code = main(["triage", *map(str, words)])
    return code, *capsys.readouterr()


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def test_one_object_for_each_incident_has_what_is_promised(capsys):
    code, out, err = triage(capsys, "--json", VICTIM)
    (found,) = objects(out)
    assert code == 0 and set(KEYS) <= set(found)
    assert (found["kind"], found["cpu"], found["task"], found["pid"], found["duration_s"]) == (
        "soft_lockup",
        1,
        "sh",
        137,
        14,
    )
    assert [each["kind"] for each in found["start_lines"]] == ["soft_lockup"] * 2
    assert (found["owner"], found["confidence"], found["corrupted"]) == ("undetermined", "none", False)
    assert found["missing"] and "1 incident in" in err


def test_people_read_what_stood_and_what_the_text_cannot_say(capsys):
    code, out, err = triage(capsys, VICTIM)
    assert code == 0 and out.startswith("1. soft lockup on CPUs 0, 1, 14 s, lines ")
    assert "CPU 0 waited for an answer of it" in out and "this text cannot say" in out.replace("\n   ", " ")
    assert "near miss" in err and "near miss" not in out


def test_nothing_found_is_1_and_says_so(capsys, tmp_path):
    quiet = tmp_path / "quiet.log"
    quiet.write_bytes(b"[    1.000000] all is well\n")
    assert triage(capsys, quiet) == (1, "", f"{quiet}: no incident in 1 lines, no near miss\n")
    empty = tmp_path / "empty"
    empty.touch()
    assert triage(capsys, "--json", empty)[:2] == (1, "")


def test_a_packed_file_is_known_by_its_first_bytes(capsys, tmp_path):
    packed = tmp_path / "console.log"
    packed.write_bytes(gzip.compress(b"".join(console("hungtask-guest-mutex"))))
    code, out, _ = triage(capsys, "--json", packed)
    assert code == 0 and objects(out)[0]["kind"] == "hung_task"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(capsys, monkeypatch, pack):
    data = pack(b"".join(console("softlockup-guest-spin")))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, out, _ = triage(capsys, "--json", "-")
    assert code == 0 and objects(out)[0]["anchor"] == "hyplab_burn"


def test_what_cannot_be_read_to_its_end_is_65_and_what_was_found_is_printed(capsys, tmp_path):
    cut = tmp_path / "cut.gz"
    whole = gzip.compress(b"".join(console("softlockup-guest-spin")) + bytes(range(256)) * 4000)
    cut.write_bytes(whole[:-100])
    code, out, err = triage(capsys, "--json", cut)
    assert code == 65 and len(objects(out)) == 1 and "cannot be read to its end" in err
    for missing in (tmp_path / "none.log", tmp_path):
        code, out, err = triage(capsys, missing, VICTIM)
        assert code == 65 and "soft lockup" in out and str(missing) in err


def test_several_files_keep_their_names_and_one_find_is_enough(capsys, tmp_path):
    quiet = tmp_path / "quiet.log"
    quiet.write_bytes(b"nothing\n")
    code, out, err = triage(capsys, quiet, VICTIM)
    assert code == 0 and f"== {VICTIM}" in out and f"{quiet}: no incident" in err
    code, out, _ = triage(capsys, "--json", VICTIM, VICTIM)
    assert [each["file"] for each in objects(out)] == [VICTIM, VICTIM]


def test_near_misses_are_shown_beside(capsys, tmp_path):
    log = tmp_path / "new.log"
    log.write_bytes(b"[  100.000000] watchdog: CPU 3 soft lockup detected after 25s\n")
    code, out, err = triage(capsys, log)
    assert (code, out) == (1, "") and "1 near miss" in err and "CPU 3 soft lockup" in err


def test_control_characters_of_a_guest_do_not_reach_the_terminal(capsys, tmp_path):
    log = tmp_path / "evil.log"
    log.write_bytes(b"[  100.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [a\x07\x1b]0;x\x08b:1]\n")
    code, out, err = triage(capsys, log)
    assert code == 0 and not any(ord(char) < 32 and char != "\n" for char in out + err)
