"""The page: well-formed, needs nothing else, and whatever a guest says stays text."""

import io
import re
from html.parser import HTMLParser

import pytest

from consumers.clocks.graph import Node
from consumers.coverage import Span
from consumers.export.scope import When
from consumers.lake.layout import open_lake
from consumers.timeline import page
from consumers.timeline.build import Choice, Timeline, build
from consumers.timeline.entries import Entry, Kind, Order
from consumers.timeline.scope import Scope
from consumers.timeline.window import Window
from schemas.stream import Stream
from tests.consumers._sample import START_NS
from tests.consumers.timeline import _story

S = 10**9
VOID = {"meta", "rect", "line"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'</title></svg><iframe src=//evil>",
    "</td></tr></table><style>*{display:none}</style>",
    "\x1b[2J\u202eabc\x00\r\n",
    "&lt;script&gt; &amp; &#60;",
    "]]><!--",
)


class Page(HTMLParser):
    """Holds a page's elements and the text of each cell; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.cells, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "td":
            self.cells[-1] += data


def written(found):
    out = io.StringIO()
    page.write(found, out)
    return out.getvalue()


def made(texts):
    stream = Stream("<m>", "b", "guest-kernel", "kmsg", "<i>&", "printk")
    rows = [Entry(Kind.RECORD, stream, "printk", S, 0, text, at_ns=START_NS + S, bound_ns=5 * 10**8) for text in texts]
    rows[0].order, rows[0].bound_ns, rows[0].reason = Order.ARRIVAL, None, '"onmouseover="alert(1)'
    scope = Scope("VM <b>x</b>", frozenset({"<m>"}), frozenset(), (), (), (), (stream,))
    node = Node("<m>", "b", "realtime")
    window = Window(node, START_NS, START_NS + 2 * S, Span(START_NS, START_NS + 2 * S), node, START_NS)
    return Timeline(scope, window, START_NS + 2 * S, rows, 3, ["a <note>"])


def test_hostile_text_stays_text():
    text = written(made(HOSTILE))
    found = Page(text)
    allowed = "html head meta title style body h1 p svg defs pattern rect line text a table thead tr th tbody td"
    assert set(found.tags) <= set(allowed.split())
    names = {name for name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style")}
    assert all(value.startswith("#r") for name, value in found.attributes if name == "href")
    assert found.cells[6::7][0] == HOSTILE[0]
    assert found.cells[6::7][4] == "\\x1b[2J\\u202eabc\\x00\\x0d\\n"
    assert all(char == "\n" or char.isprintable() for char in text)


def test_the_page_forbids_itself_to_fetch_or_run_anything():
    text = written(made(["x"]))
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|url\((?!#hatch\))|@import|<script", text)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    storage = _story.build(tmp_path_factory.mktemp("page") / "lake")
    since, until = (When("arrival_ns", START_NS + at_s * S) for at_s in (3, 28))
    assert open_lake(storage.root, create=False)
    return build(storage, Choice(_story.VM, None, since, until), 1000)


def test_every_row_has_a_mark_and_a_line_in_the_table(story):
    text = written(story)
    found = Page(text)
    count = len(story.entries)
    assert found.tags.count("tr") == count + 1
    assert found.tags.count("a") == count
    links = {value[1:] for name, value in found.attributes if name == "href"}
    assert links == {value for name, value in found.attributes if name == "id" and value.startswith("r")}
    assert found.cells[6::7] == [row.text.replace("\n", "\\n").replace("\t", "\\t") for row in story.entries]


def test_lanes_go_from_the_guest_to_the_host_and_blind_spans_are_hatched(story):
    text = written(story)
    lanes = re.findall(r'<text x="6" [^>]*>([^<]*)<', text)
    layers = [lane.split()[0] for lane in lanes]
    assert layers == sorted(layers, key=["guest-kernel", "virtual-platform", "host"].index)
    assert "virtual-platform qmp/web-7" in lanes
    assert "guest-kernel ftrace/sched" in lanes
    blind = sum(row.kind is Kind.BLIND for row in story.entries)
    assert text.count('<rect class="blind"') == blind > 0
    assert text.count(' bound" ') == sum(
        row.bound_ns is not None and row.kind is not Kind.BLIND for row in story.entries
    )


def test_a_span_is_as_wide_as_it_took(story):
    text = written(story)
    (mark,) = re.findall(r'<a href="#r\d+">((?:(?!</a>).)*)<title>[^<]*vCPU 1 ran 0.0 of 8.0 s', text)
    width = float(re.search(r'class="warn span"[^>]*width="([\d.]+)"', mark)[1])
    assert abs(width / (1400 - 260 - 10) - 8 / 25) < 0.001
