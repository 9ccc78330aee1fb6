"""The page as text: one can print it on a terminal, whatever a guest wrote, and paste what it says."""

import io

import pytest

from consumers.incidents import page_text
from tests.consumers.incidents._pages import HOSTILE, page
from tests.consumers.incidents._reports import play, soft


def written(made, rows=5):
    (incident,) = play(soft(1, 100, 22)).incidents
    out = io.StringIO()
    page_text.write(made, incident, rows, out)
    return out.getvalue()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_moves_a_cursor_or_turns_text_round(hostile):
    assert all(char == "\n" or char.isprintable() for char in written(page(hostile)))


def test_a_line_of_a_megabyte_is_cut_and_said_to_be():
    text = written(page("A" * (1 << 20), "x", timeline=False))
    assert "… (1,048,176 characters more)" in text
    assert len(text) < 200_000


def test_a_command_is_never_cut():
    assert f"$ {'A' * (1 << 20)}\n" in written(page("A" * (1 << 20), timeline=False))


def test_paragraphs_are_as_wide_as_a_terminal_and_commands_in_one_line():
    text = written(page("word " * 100))
    lines = text.splitlines()
    assert f"{' ' * 13}$ {'word ' * 100}" in lines
    told = lines[3 : lines.index("", 3)]
    assert len(told) > 5
    assert all(len(line) <= page_text.WIDTH for line in told)


def test_lines_that_are_left_out_are_counted():
    made = page("x")
    report = made.reports[0]._replace(lines=made.reports[0].lines * 70)
    assert "... and 13 lines more" in written(made._replace(reports=(report,)))
