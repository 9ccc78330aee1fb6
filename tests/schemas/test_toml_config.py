from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas import bounds, toml_config
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Inner:
    count: int = bounds.key(1, bounds.within(1, 9, "things"))
    ratio: float = 0.5
    name: str | None = None
    names: tuple[str, ...] = ()
    on: bool = True
    dir: Path | None = None

    def __post_init__(self):
        bounds.check(self)


@dataclass(frozen=True, slots=True)
class Needed:
    address: str
    port: int = 1


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    other: Inner = field(default_factory=lambda: Inner(count=7, name="seven"))
    needed: Needed | None = None
    several: tuple[Needed, ...] = ()


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "c.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return toml_config.load(path, Outer)

    return load


@pytest.fixture
def refused(load, tmp_path):
    def refused(text):
        with pytest.raises(UsageError) as caught:
            load(text)
        found = str(caught.value)
        assert found.startswith(f"{tmp_path / 'c.toml'}: ")
        assert "\n" not in found
        return found.partition(": ")[2]

    return refused


def test_every_type_is_read(load):
    text = (
        '[inner]\ncount = 3\nratio = 2\nname = "n"\nnames = ["a", "b"]\non = false\ndir = "/x"\n[needed]\naddress = "h"'
    )
    assert load(text) == Outer(Inner(3, 2.0, "n", ("a", "b"), on=False, dir=Path("/x")), needed=Needed("h"))
    assert isinstance(load(text).inner.ratio, float)


def test_a_list_of_tables_is_read_in_order(load):
    text = "[[several]]\naddress = 'a'\n[[several]]\naddress = 'b'\nport = 2"
    assert load(text).several == (Needed("a"), Needed("b", 2))


def test_an_empty_file_is_the_defaults(load):
    assert load("") == Outer()


def test_a_table_starts_from_its_own_defaults_and_not_from_its_types(load):
    assert load("[other]\nratio = 0.25").other == Inner(count=7, ratio=0.25, name="seven")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("inter = 1", "unknown key inter; the nearest valid one is inner"),
        ("[inner]\ncuont = 1", "unknown key inner.cuont; the nearest valid one is inner.count"),
        ("[other]\nzzz = 1", "unknown key other.zzz; the nearest valid one is other."),
        ("[needed]\nadress = 'h'", "unknown key needed.adress; the nearest valid one is needed.address"),
        ("[inner.deep]\nx = 1", "unknown key inner.deep; the nearest valid one is inner."),
        ("[needed]\nport = 2", "needed.address is missing"),
        ("inner = 1", "inner is a table, not 1"),
        ("needed = 'h'", "needed is a table, not 'h'"),
        ("[[inner]]\ncount = 1", "inner is a table, not ["),
        ("[inner]\ncount = '1'", "inner.count is a whole number, not '1'"),
        ("[inner]\ncount = 1.0", "inner.count is a whole number, not 1.0"),
        ("[inner]\ncount = true", "inner.count is a whole number, not True"),
        ("[inner]\ncount = 1979-05-27", "inner.count is a whole number, not "),
        ("[inner]\nratio = 'x'", "inner.ratio is a number, not 'x'"),
        ("[inner]\nratio = false", "inner.ratio is a number, not False"),
        ("[inner]\nname = 1", "inner.name is a text, not 1"),
        ("[inner]\nnames = 'a'", "inner.names is a list of texts, not 'a'"),
        ("[inner]\nnames = [1]", "inner.names is a list of texts, not [1]"),
        ("[inner]\non = 1", "inner.on is true or false, not 1"),
        ("[several]\naddress = 'h'", "several is a list of tables, not {"),
        ("several = ['h']", "several[0] is a table, not 'h'"),
        ("[[several]]\naddress = 'h'\n[[several]]\nport = 1", "several[1].address is missing"),
        ("[[several]]\nadres = 'h'", "unknown key several[0].adres; the nearest valid one is several[0].address"),
        ("[inner]\ndir = 1", "inner.dir is a path, not 1"),
        ("[inner]\ndir = ''", "inner.dir is a path, not ''"),
        ('[inner]\ndir = "a\\u0000b"', "inner.dir is a path, not "),
        ("[inner]\ncount = 0", "inner.count is from 1 to 9 things, not 0"),
        ("[other]\ncount = 10", "other.count is from 1 to 9 things, not 10"),
        ("[inner]\ncount = ", "not TOML: "),
        ("[inner]\ncount = 1\ncount = 2", "not TOML: "),
        ("[inner]\n[inner]", "not TOML: "),
        (b"[inner]\nname = '\xff'", "not TOML: "),
        ("x = " + "[" * 5000, "not TOML: "),
    ],
)
def test_what_is_wrong_is_said_with_its_full_name(refused, text, wanted):
    assert refused(text).startswith(wanted)


def test_a_long_value_is_not_repeated_as_a_whole(refused):
    assert len(refused(f"[inner]\ncount = '{'x' * 5000}'")) < 150


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.toml: No such file"):
        toml_config.load(tmp_path / "absent.toml", Outer)
    with pytest.raises(UsageError, match="Is a directory"):
        toml_config.load(tmp_path, Outer)
