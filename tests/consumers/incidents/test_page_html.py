"""The page in HTML: hostile text stays text, nothing is fetched or run, and a line of a megabyte does not make it one."""

import io
import re

import pytest

from consumers.incidents import page_html
from tests.consumers.incidents._pages import HOSTILE, page
from tests.consumers.incidents._reports import play, soft
from tests.consumers.timeline.test_page import Page

ALLOWED = (
    "html head meta title style body h1 h2 p span dl dt dd code ol ul li details summary pre "
    "svg defs pattern rect line text a table thead tr th tbody td"
)


def written(made):
    (incident,) = play(soft(1, 100, 22)).incidents
    out = io.StringIO()
    page_html.write(made, incident, "high", out)
    return out.getvalue()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(hostile):
    text = written(page(hostile))
    found = Page(text)
    assert set(found.tags) <= set(ALLOWED.split())
    names = {name for name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style")}
    assert all(value.startswith("#r") for name, value in found.attributes if name == "href")
    assert all(char == "\n" or char.isprintable() for char in text)


def test_it_forbids_itself_to_fetch_or_run_anything():
    text = written(page("x"))
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|url\((?!#hatch\))|@import|<script", text)


def test_a_line_of_a_megabyte_is_cut_and_said_to_be():
    text = written(page("A" * (1 << 20), "x"))
    assert len(text) < 400_000
    assert "… (1,044,576 characters more)" in text


def test_a_page_without_a_timeline_says_why():
    text = written(page("there is none", timeline=False))
    assert "<p>there is none</p>" in text
    assert "<svg" not in text
