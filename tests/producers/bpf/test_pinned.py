"""Rings that others pinned, on the real kernel: what is refused, what a record is, and one agent after another."""

import os
import re

import pytest

from consumers.decode import bpf_layout
from consumers.decode.bpf_btf import Btf
from producers.bpf import pinned as bpf_pinned
from producers.bpf import readers, ring
from producers.registry import Known
from schemas import bpf
from schemas.config import BpfPinned
from schemas.errors import AccessError, UsageError
from schemas.frame import decode
from schemas.loss import Loss
from schemas.surfaces import SURFACES
from tests._logs import read_all
from tests.producers.bpf._pinned import SLOT_BYTES, Pinned, items_of, read_by, reading
from tests.producers.ftrace._ftrace import AgentProcess

pytestmark = pytest.mark.kernel


@pytest.fixture
def pinned(bpf_fs, tmp_path):
    made = Pinned(bpf_fs, tmp_path / "state")
    yield made
    made.close()


def positional(batches):
    return [loss for batch in batches for loss in batch.losses if loss.unit == "position"]


# The description


def types_of(pinned, **settings):
    types, records = pinned.open_all(BpfPinned(str(pinned.path), **settings))
    (batch,) = types.cut()
    pinned.owners[-1].write(3)
    records.drain()
    assert {each.descriptor for each in records.cut()} == {bpf.descriptor(batch.body)}
    return bpf.unpack_types(batch.body)


def test_a_struct_is_described_by_the_program_that_uses_the_ring(pinned):
    pinned.owner(ring_bytes=8192)
    said = types_of(pinned, struct="shop_item")
    assert (said.program, said.type, said.source, said.ring_bytes) == ("pinned/shop", "shop_item", "pinned", 8192)
    names = [each.name for each in bpf_layout.layout(Btf(said.btf), "shop_item").columns]
    assert names == ["number", "kind", "weight", "name", "next"]


def test_a_struct_of_the_kernel_needs_no_program(pinned):
    pinned.owner().close()
    types, _ = pinned.open_all(BpfPinned(str(pinned.path), struct="timespec64"))
    said = bpf.unpack_types(types.cut()[0].body)
    assert [each.name for each in bpf_layout.layout(Btf(said.btf), "timespec64").columns] == ["tv_sec", "tv_nsec"]


def test_without_a_struct_records_are_raw(pinned):
    pinned.owner()
    said = types_of(pinned, name="till")
    assert (said.program, said.type, said.btf) == ("pinned/till", "", b"")


def test_a_struct_that_nobody_has_is_said(pinned):
    pinned.owner()
    with pytest.raises(UsageError, match="no struct shop_itme in the kernel's BTF, nor in that of the 1 programs"):
        pinned.open(struct="shop_itme")
    pinned.owners[-1].close()
    with pytest.raises(UsageError, match="no struct shop_item in the kernel's BTF, nor in that of the 0 programs"):
        pinned.open()


# What is refused


@pytest.mark.parametrize(
    ("pin_of", "said"),
    [("shelf", r"a BPF map of type 2 is no ring buffer \(type 27\)"), (None, "is no BPF map but bpf-prog")],
)
def test_what_is_no_ring_is_refused(pinned, pin_of, said):
    pinned.owner(pin_of=pin_of)
    with pytest.raises(UsageError, match=f"{re.escape(str(pinned.path))}.*{said}"):
        pinned.open()


def test_what_is_not_there_is_refused(pinned, tmp_path):
    with pytest.raises(UsageError, match=r"nothing is pinned at .*/shop$"):
        pinned.open()
    (tmp_path / "plain").touch()
    for path in ("plain", "missing", "no/folder"):
        with pytest.raises(UsageError, match="lies in no BPF filesystem: one is mounted by `mount -t bpf bpf "):
            pinned.open_all(BpfPinned(str(tmp_path / path)))


def test_a_ring_that_overwrites_is_refused(pinned, monkeypatch):
    pinned.owner()
    told = ring.map_info

    def overwriting(fd):
        info = told(fd)
        info.map_flags |= 1 << 19
        return info

    monkeypatch.setattr(ring, "map_info", overwriting)
    with pytest.raises(UsageError, match="/shop: a BPF ring made with BPF_F_RB_OVERWRITE"):
        pinned.open()


def test_a_ring_that_somebody_reads_is_refused_with_who(pinned):
    owner = pinned.owner()
    with reading(owner.pin) as process, pytest.raises(UsageError, match="end that one first") as caught:
        pinned.open()
    assert f"{owner.pin} is read by process {process.pid} (python" in str(caught.value)
    pinned.open()


def test_a_reader_that_cannot_be_seen_is_known_by_what_it_does(pinned, monkeypatch):
    owner = pinned.owner()
    owner.write(2)
    with reading(owner.pin) as process:

        def blind(*args):
            read_by(process, SLOT_BYTES)
            return []

        monkeypatch.setattr(readers, "others", blind)
        with pytest.raises(UsageError, match="is read by another process, which cannot be seen"):
            pinned.open()


def test_one_ring_is_not_read_twice_by_one_agent(pinned):
    owner = pinned.owner()
    os.link(owner.pin, owner.pin.with_name("again"))
    with pytest.raises(UsageError, match=r"/again and .*/shop are one ring"):
        pinned.open_all(BpfPinned(str(owner.pin)), BpfPinned(str(owner.pin.with_name("again"))))


def test_a_user_without_the_capabilities_is_told_which(pinned):
    pinned.owner()
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            bpf_pinned._get(pinned.path)
        except AccessError as e:
            os.write(tell, str(e).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    said = os.read(told, 4096)
    os.close(told)
    assert said.endswith(b"/shop may not be opened: it takes CAP_BPF and the right to write to it, or root")


# One agent after another


@pytest.mark.parametrize("stored", [0, 40, 100])
def test_what_an_agent_held_when_it_was_killed_is_read_again_but_for_what_is_stored(pinned, stored):
    owner = pinned.owner()
    owner.write(100)
    if (child := os.fork()) == 0:
        source = pinned.open()
        source.drain()
        source.cut()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    owner.write(10)
    source = pinned.open(known=Known(stored, 5) if stored else None)
    assert source.next_position() == stored
    source.drain()
    batches = source.cut()
    assert positional(batches) == []
    assert [each.number for each in items_of(batches)] == list(range(stored, 110))
    assert batches[0].first == stored


def test_what_had_to_be_let_go_before_it_was_stored_is_a_loss_of_just_that(pinned):
    owner = pinned.owner(ring_bytes=4096)
    owner.write(50)
    if (child := os.fork()) == 0:
        source = pinned.open()
        source.drain()
        source.cut()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    owner.write(10)
    source = pinned.open(known=Known(20, 5))
    source.drain()
    (batch,) = source.cut()
    assert positional([batch]) == [Loss("drop", 20, 30, "agent-died", "agent")]
    assert (batch.first, [each.number for each in items_of([batch])]) == (50, list(range(50, 60)))


def test_a_new_ring_under_the_name_goes_on_with_the_numbers(pinned):
    owner = pinned.owner()
    owner.write(10)
    source = pinned.open()
    source.drain()
    source.cut()
    source.durable(10)
    source.close()
    owner.pin.unlink()
    pinned.owner().write(5)
    source = pinned.open(known=Known(10, 3))
    source.drain()
    (batch,) = source.cut()
    assert (batch.first, batch.next) == (10, 15)
    assert Loss("gap", 10, None, "ring-replaced", "agent", "event") in batch.losses


def frames_of(log):
    found = [decode(payload) for _, _, payload in read_all(log, SURFACES["bpf"].topic)]
    return [frame for frame in found if frame.stream.instance == "pinned/shop"]


def assert_books_close(log, owner):
    """Stored + losses = written; nothing twice, and all in the order in which it was written."""
    frames = frames_of(log)
    lost = sum(loss.count for frame in frames for loss in frame.losses if loss.unit == "position")
    numbers = [each.number for each in items_of([each for each in frames if each.encoding == "bpf"])]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + lost == owner.written
    assert owner.written + owner.refused == owner.attempts
    at = 0
    for frame in frames:
        assert frame.first == at + sum(loss.count for loss in frame.losses if loss.unit == "position")
        at = frame.next
    assert at == owner.written
    return lost


# Wherever it dies: what is cut, written, synced, or known to be durable, and its room in the ring not given back.
@pytest.mark.parametrize("point", ["cut:3", "durable", "durable:3"])
def test_an_agent_that_dies_at_any_point_leaves_every_record_to_the_next(bpf_fs, tmp_path, monkeypatch, point):
    owner, log = bpf_fs.owner(), tmp_path / "log"
    flags = ("--pinned", str(owner.pin), "--struct", "shop_item", "--linger-ms", "5", "--heartbeat-s", "0.2")
    monkeypatch.setenv("HYPOCENTER_CRASH_AT", f"agent:{point}")
    agent = AgentProcess(log, *flags, err=tmp_path / "1.err", surface="bpf")
    try:
        while agent.process.poll() is None:
            if owner.attempts < 8000:  # less than half of the ring
                owner.write(20)
    finally:
        agent.close()
    assert agent.process.returncode == -9
    owner.write(20)
    monkeypatch.delenv("HYPOCENTER_CRASH_AT")
    agent = AgentProcess(log, *flags, err=tmp_path / "2.err", surface="bpf").started()
    try:
        owner.write(20)
        agent.stop()
    finally:
        agent.close()
    assert assert_books_close(log, owner) == 0
    assert owner.waiting_bytes() == 0


@pytest.mark.parametrize("ring_bytes", [1 << 14, 1 << 22])
def test_agents_killed_in_mid_stream_lose_nothing_uncounted_and_store_nothing_twice(bpf_fs, tmp_path, ring_bytes):
    owner, log = bpf_fs.owner(ring_bytes=ring_bytes), tmp_path / "log"
    flags = ("--pinned", str(owner.pin), "--struct", "shop_item", "--linger-ms", "5", "--heartbeat-s", "0.2")
    for life in range(4):
        agent = AgentProcess(log, *flags, err=tmp_path / f"{life}.err", surface="bpf").started()
        try:
            begun = owner.written
            while owner.written < begun + 8_000 or len({frame.run for frame in frames_of(log)}) <= life:
                for _ in range(100):
                    owner.write(10)
            if life < 3:
                agent.kill()
                owner.write(10)
            else:
                agent.stop()
        finally:
            agent.close()
    assert len({frame.run for frame in frames_of(log)}) == 4
    assert_books_close(log, owner)
