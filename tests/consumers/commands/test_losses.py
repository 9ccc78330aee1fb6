import csv
import io
import json

from tests.consumers import _sample


def test_a_table_for_people_has_short_ids_and_times(run, sample_lake):
    done = run("losses", "--lake", sample_lake)
    assert done.code == 0
    assert done.lines == [
        "arrived_utc          machine   boot      stream             kind       from  count  reason             found_by",
        "-------------------  --------  --------  -----------------  ---------  ----  -----  -----------------  --------",
        "2026-03-02 09:00:00  5f0c2a9b  c1f6a0de  guest-kernel/kmsg  overwrite     0     50  before-first-read  agent",
        "2026-03-02 09:00:01  5f0c2a9b  c1f6a0de  guest-kernel/kmsg  overwrite   200     60  ring-overwritten   agent",
        "(2 rows)",
    ]


def test_json_and_csv_have_everything_under_the_same_names(run, sample_lake):
    lines = [json.loads(line) for line in run("losses", "--lake", sample_lake, "--format", "json").lines]
    assert [(line["machine"], line["first_position"], line["count"]) for line in lines] == [
        (_sample.HUNG.machine, 0, 50),
        (_sample.HUNG.machine, 200, 60),
    ]
    assert lines[0]["boot_id"] == _sample.HUNG.boot_id
    assert lines[0]["arrival_ns"] > _sample.START_NS
    rows = list(csv.DictReader(io.StringIO(run("losses", "--lake", sample_lake, "--format", "csv").out)))
    assert [{key: str(value) for key, value in line.items()} for line in lines] == rows


def test_no_loss_is_an_empty_table(run, empty_lake):
    assert run("losses", "--lake", empty_lake).lines[-1] == "(0 rows)"
    assert run("losses", "--lake", empty_lake, "--format", "json").out == ""


def test_events_are_told_from_positions(run, tmp_path):
    _sample.build(tmp_path / "lake", trace=True)
    lines = run("losses", "--lake", tmp_path / "lake").lines
    assert [line.split()[5:9] for line in lines if "ring-overrun" in line] == [["overwrite", "1", "37", "events"]]
    assert [line.split()[5:9] for line in lines if "ring-full" in line] == [["drop", "4", "3", "events"]]
    units = [json.loads(line)["unit"] for line in run("losses", "--lake", tmp_path / "lake", "--format", "json").lines]
    assert sorted(units) == ["event", "event", "position", "position"]
