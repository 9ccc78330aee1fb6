"""A page of an incident by hand, in which every text is what a test says."""

from consumers.incidents.page_parts import Item, Page, RawLine, RawReport
from consumers.incidents.page_timeline import Told
from consumers.incidents.questions import Answered
from tests.consumers.timeline.test_page import made

#: What guests may write to break a page or a terminal.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'</title></pre></code></details><iframe src=//evil>",
    "</dd></dl><style>*{display:none}</style>",
    "\x1b[2J\x1b]0;t\x07\u202eabc\u2066\x00\r\n\x9b31m",
    "&lt;script&gt; &amp; &#60;",
    "\u2028\u2029\ufeff\u200b",
    "]]><!--",
)


def page(text, command=None, *, timeline=True):
    """Return a page that says `text` wherever anybody may say anything, in its commands too unless these are given."""
    command = text if command is None else command
    item = Item(text, text, (command,))
    told = Told(made(HOSTILE) if timeline else None, text, command)
    report = RawReport(text, (RawLine(7, "1.000000", text, text),), 3)
    return Page(
        text, (text, text), (item, item), (item,), (Answered(text, (text,)),), told, (report,), command, (item,)
    )
