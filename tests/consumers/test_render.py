import csv
import datetime as dt
import decimal
import io
import itertools
import json

import pytest

from consumers import render


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def printed(names, rows, form="table", **kwargs):
    out = io.StringIO()
    render.print_rows(names, rows, form, out, **kwargs)
    return out.getvalue()


def test_numbers_are_right_and_texts_left_and_null_says_so():
    assert printed(["n", "text", "f"], [(1, "a", 0.5), (None, "bcd", None), (300, None, 12.25)]) == (
        "   n  text      f\n"
        "----  ----  -----\n"
        "   1  a       0.5\n"
        "null  bcd    null\n"
        " 300  null  12.25\n"
        "(3 rows)\n"
    )  # fmt: skip


@pytest.mark.parametrize(("count", "said"), [(0, "(0 rows)"), (1, "(1 row)"), (2, "(2 rows)")])
def test_the_rows_are_counted(count, said):
    assert printed(["a"], [(1,)] * count).splitlines()[-1] == said


def test_a_cell_is_one_line_and_moves_no_cursor():
    text = "a\nb\tc\x1b[2Jd\u202ee\x85"
    assert r"a\nb\tc\x1b[2Jd\u202ee\x85" in printed(["t"], [(text,)])


def test_maps_lists_bytes_and_times_are_readable():
    at = dt.datetime(2026, 3, 2, 9, 0, 0, 250_000)  # noqa: DTZ001  # as DuckDB gives a TIMESTAMP
    row = ({"A": "b"}, [1, None], b"\x00\xff", at, True, decimal.Decimal("1.50"))
    assert printed(["m", "l", "b", "t", "f", "d"], [row]).splitlines()[2].split("  ") == [
        '{"A": "b"}', "[1, null]", "00ff", "2026-03-02 09:00:00.250000", "true", "1.50"
    ]  # fmt: skip


def test_long_texts_are_cut_to_the_width_and_the_flag_for_the_rest_is_named(monkeypatch):
    rows = [(123456, "x" * 200, "2026-03-02 09:00:00", "y" * 50)]
    for width in (120, 90, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = printed(["n", "long", "at", "other"], rows, whole="--json").splitlines()
        assert max(map(len, lines)) <= width
        assert lines[2].startswith("123456  xxx")
        assert "2026-03-02 09:00:00" in lines[2]
        assert "…" in lines[2]
        assert lines[-1] == "(1 row; … is cut text, --json has all of it)"


def test_the_longest_text_is_cut_first(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    line = printed(["a", "b"], [("short enough to stay", "x" * 100)]).splitlines()[2]
    assert line == "short enough to stay  " + "x" * 37 + "…"


def test_what_fits_is_not_cut():
    assert "…" not in printed(["a"], [("x" * 120,)])
    assert "…" in printed(["a"], [("x" * 121,)])


def test_too_many_columns_are_printed_one_a_line_uncut():
    names = [f"column_{i}" for i in range(12)]
    lines = printed(names, [tuple(f"{i}{'x' * 150}" for i in range(12))]).splitlines()
    assert lines[0] == "--- row 1"
    assert lines[1] == f"column_0   0{'x' * 150}"
    assert lines[-1] == "(1 row)"
    assert len(lines) == 14


def test_the_first_rows_of_a_long_answer_are_printed_before_its_last_one_is_made():
    out = io.StringIO()

    def made():
        for number in range(1, 100_001):
            assert number < 50_000 or out.getvalue().startswith("    n  a\n-----  -\n    1  a\n")
            yield number, "a" if number < 100_000 else "b" * 200

    render.print_rows(["n", "a"], made(), "table", out)
    lines = out.getvalue().splitlines()
    assert lines[2:4] == ["    1  a", "    2  a"]
    assert lines[-2] == f"100000  {'b' * 111}…"
    assert lines[-1] == "(100000 rows; … is cut text, --format json has all of it)"
    assert len(lines) == 100_003


def test_rows_that_do_not_fit_behind_many_that_did_are_printed_one_value_a_line():
    wide = tuple(10**30 + i for i in range(4))
    lines = printed([*"abcd"], itertools.chain([(1, 2, 3, 4)] * 10_000, [wide, (1, 2, 3, 4)])).splitlines()
    assert lines[2] == "1  2  3  4"
    assert lines[10_002:10_005] == ["--- row 10001", f"a  {10**30}", f"b  {10**30 + 1}"]
    assert lines[-1] == "(10002 rows)"


def test_no_rows_of_many_columns_are_still_a_table():
    lines = printed([f"column_{i}" for i in range(30)], []).splitlines()
    assert lines[0].split() == [f"column_{i}" for i in range(30)]


def test_json_is_one_valid_object_a_line_whatever_the_value():
    row = (
        float("nan"),
        float("inf"),
        decimal.Decimal("0.1"),
        dt.date(2026, 3, 2),
        {1: b"\x01"},
        (1, 2),
        "a\nb",
        None,
        "é",
    )
    names = ["nan", "inf", "dec", "date", "map", "list", "text", "null", "utf"]
    (line,) = printed(names, [row], "json").splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse) == {
        "nan": None, "inf": None, "dec": 0.1, "date": "2026-03-02", "map": {"1": "01"}, "list": [1, 2], "text": "a\nb",
        "null": None, "utf": "é",
    }  # fmt: skip


def test_columns_of_one_name_lose_no_value_in_json():
    assert json.loads(printed(["a", "a", "b", "a"], [(1, 2, 3, 4)], "json")) == {"a": 1, "a_2": 2, "b": 3, "a_3": 4}


def test_csv_reads_back():
    text = printed(["a", "b"], [('x,"y"\nz', {"k": None}), (None, b"\x00")], "csv")
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ['x,"y"\nz', '{"k": null}'], ["", "00"]]


def test_thousands_are_grouped_and_stay_on_the_right():
    assert [render.grouped(number) for number in (None, 0, 999, 1000, 1531080, -5)] == [
        "null", "0", "999", "1,000", "1,531,080", "-5"
    ]  # fmt: skip
    assert printed(["n"], [("1,000",), ("7",), ("null",)]).splitlines()[2:5] == ["1,000", "    7", " null"]


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "1970-01-01 00:00:00"), (1_772_442_000_999_999_999, "2026-03-02 09:00:00")]
)
def test_a_time_is_utc_to_the_second(ns, text):
    assert render.utc(ns) == text


def test_ids_are_as_short_as_tells_them_apart_and_names_stay():
    one, two, other = "5f0c2a9be1d84c0c8a7d3b6f91e24d70", "5f0c2a9be1d84c0c8a7d3b6f91e24d71", "0" * 32
    boot = "c1f6a0de-3b52-4d0e-9c11-7be2a04f5d38"
    assert render.short_ids([one, boot, "web-1", ""]) == {one: "5f0c2a9b", boot: "c1f6a0de", "web-1": "web-1", "": ""}
    assert render.short_ids([one, other]) == {one: "5f0c2a9b", other: "00000000"}
    assert render.short_ids([one, two]) == {one: one, two: two}
    assert render.short_ids([]) == {}


def test_print_json_is_one_object(capsys):
    render.print_json({"a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}
