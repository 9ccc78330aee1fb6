import os

import pytest

from producers.bpf import anchors as bpf_anchors
from producers.bpf.anchors import Anchor, Resumed, resume
from schemas.errors import StorageError
from schemas.loss import Loss

BOOT = "65e71522-4b25-445c-892f-041b97c36dad"
A, B = Anchor(4096, 100), Anchor(8192, 200)
READ_BY_ANOTHER = Loss("gap", 200, None, "read-by-another", "agent", "event")


def died(first, count):
    return Loss("drop", first, count, "agent-died", "agent")


@pytest.mark.parametrize(
    ("noted", "same_ring", "consumed", "durable", "wanted"),
    [
        ([], False, 4096, 0, Resumed(0, 0, [])),
        ([], False, 4096, 7, Resumed(7, 0, [Loss("drop", 7, None, "agent-died", "agent", "event")])),
        # Room was given back for all that is stored, for less, and for more.
        ([A, B], True, 8192, 200, Resumed(200, 0, [])),
        ([A, B], True, 8192, 230, Resumed(230, 30, [])),
        ([A, B], True, 8192, 150, Resumed(200, 0, [died(150, 50)])),
        # Killed between the note and the move.
        ([A, B], True, 4096, 160, Resumed(160, 60, [])),
        ([B, A], True, 4096, 100, Resumed(100, 0, [])),
        # Records that were taken back have no number.
        ([Anchor(4096, 100), Anchor(4160, 100)], True, 4160, 100, Resumed(100, 0, [])),
        # Whoever read it meanwhile did not say how many; a new ring of this name says nothing of the old one's end.
        ([A, B], True, 9000, 200, Resumed(200, 0, [READ_BY_ANOTHER])),
        ([A, B], True, 9000, 150, Resumed(200, 0, [died(150, 50), READ_BY_ANOTHER])),
        ([A, B], True, 0, 250, Resumed(250, 0, [READ_BY_ANOTHER._replace(first_position=250)])),
        ([A, B], False, 8192, 200, Resumed(200, 0, [READ_BY_ANOTHER._replace(reason="ring-replaced")])),
    ],
)
def test_a_run_begins_where_ring_log_and_anchors_say(noted, same_ring, consumed, durable, wanted):
    assert resume(noted, same_ring, consumed, durable) == wanted


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("notes", [1, 2, 3])
def test_one_slot_fits_whenever_the_agent_dies(tmp_path, notes, moved):
    if (child := os.fork()) == 0:
        anchors = bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 5)
        anchors.begin(64, 0)
        for i in range(1, notes + 1):
            anchors.note(Anchor(64 + 80 * i, 2 * i))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    stands = notes if moved else notes - 1
    anchors = bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 5)
    assert anchors.begin(64 + 80 * stands, 2 * stands + 1) == Resumed(2 * stands + 1, 1, [])
    # What the second run noted at its begin fits as well.
    again = bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 5)
    assert again.begin(64 + 80 * stands, 2 * stands + 1) == Resumed(2 * stands + 1, 1, [])


def test_another_ring_of_the_name_is_known_by_its_id(tmp_path):
    bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 5).begin(0, 0)
    _, _, losses = bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 6).begin(0, 3)
    assert losses == [Loss("gap", 3, None, "ring-replaced", "agent", "event")]
    assert bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 6).begin(0, 3).losses == []


def test_a_disk_that_keeps_no_anchors_is_refused(tmp_path):
    (tmp_path / "bpf").write_text("in the way")
    with pytest.raises(StorageError, match="where a pinned ring was read to must be kept there"):
        bpf_anchors.of_ring(tmp_path / "bpf", "pinned.x", BOOT, 5)
