import dataclasses
import math

import pytest

from schemas import bounds
from schemas.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    seconds: float | None = bounds.key(None, bounds.within(0.5, 1_000_000, "seconds"))
    colour: str = bounds.key("red", bounds.one_of(("red", "blue")))
    colours: tuple[str, ...] = bounds.key(("red",), bounds.some_of(("red", "blue")))
    word: str = bounds.key("a", bounds.matching("[a-z]+", "small letters"))
    words: tuple[str, ...] = bounds.key((), bounds.each_matching("[a-z]+", "words"))
    tag: str = bounds.key("t", bounds.tag())
    secret: str = bounds.key("s", bounds.matching("[a-z]", "one letter")._replace(secret=True))
    free: int = 0

    def __post_init__(self):
        bounds.check(self)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"seconds": 0.4}, "seconds is from 0.5 to 1 000 000 seconds, not 0.4"),
        ({"seconds": 1_000_001}, "seconds is from 0.5 to 1 000 000 seconds, not 1000001"),
        ({"seconds": -1}, "seconds is "),
        ({"seconds": math.nan}, "seconds is from 0.5 to 1 000 000 seconds, not nan"),
        ({"seconds": math.inf}, "seconds is from 0.5 to 1 000 000 seconds, not inf"),
        ({"colour": "green"}, "colour is one of red, blue, not 'green'"),
        ({"colours": ()}, "colours is a list of at least one of red, blue, none twice, not []"),
        ({"colours": ("red", "red")}, "colours is "),
        ({"colours": ("red", "green")}, "colours is "),
        ({"word": "aB"}, "word is small letters, not 'aB'"),
        ({"word": "a\n"}, "word is small letters, not "),
        ({"word": ""}, "word is small letters, not ''"),
        ({"words": ("a", "1")}, "words is words, not ['a', '1']"),
        ({"words": ("a", "a")}, "words is "),
        ({"tag": ""}, "tag is a text of 1 to 255 bytes without NUL, not ''"),
        ({"tag": "é" * 128}, "tag is "),
        ({"tag": "a\0"}, "tag is "),
    ],
)
def test_a_value_out_of_bounds_is_named_whoever_sets_it(values, wanted):
    with pytest.raises(UsageError) as caught:
        Example(**values)
    assert str(caught.value).startswith(wanted)
    with pytest.raises(UsageError):
        dataclasses.replace(Example(), **values)


def test_the_bounds_themselves_are_allowed():
    Example(0.5, "blue", ("blue", "red"), "z", ("a", "b"), "x" * 255)
    Example(1_000_000)
    Example(free=-1)


def test_a_secret_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        Example(secret="hunter2")
    assert str(caught.value) == "secret is one letter"


@pytest.mark.parametrize("values", [(0,), (11,), (1, 1), tuple(range(1, 6))])
def test_numbers_of_a_list_are_within_and_few_and_none_twice(values):
    rule = bounds.each_within(1, 10, 4, "numbers")
    assert not rule.allows(values)
    assert rule.allows((1, 10)) and rule.allows(())
    assert rule.says == "a list of at most 4 numbers, none twice"
