import re
from pathlib import Path

from schemas.loss import LossKind

WIRE = (Path(__file__).parent.parent.parent / "schemas" / "WIRE.md").read_text(encoding="utf-8")


def test_the_specification_names_every_kind_of_loss():
    losses = WIRE.partition("## 4.")[2].partition("## 5.")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", losses, re.MULTILINE) == list(LossKind)
