import re
from pathlib import Path

from schemas.stream import Layer, Stream

WIRE = (Path(__file__).parent.parent.parent / "schemas" / "WIRE.md").read_text(encoding="utf-8")


def test_the_specification_names_every_tag_and_layer_of_a_stream():
    streams = WIRE.partition("## 3.")[2].partition("## 4.")[0]
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", streams, re.MULTILINE))
    assert tuple(rows)[1:] == Stream._fields
    assert re.findall(r"`([a-z-]+)`", rows["layer"]) == list(Layer)
