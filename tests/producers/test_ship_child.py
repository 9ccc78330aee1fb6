"""The shipper's place is taken by small programs: what they are told, and what becomes of the agent when they end."""

import asyncio
import sys
import time

import pytest

from producers import ship_child
from producers.ship_child import ShipperChild

# Copies its standard input to the file until the end, waiting for what is not there yet.
_COPY = """
import os, select, sys
with open(sys.argv[1], "ab", 0) as out:
    while select.select([0], [], []) and (data := os.read(0, 65536)):
        out.write(data)
"""


def child(code, *args):
    return ShipperChild([sys.executable, "-c", code, *map(str, args)])


async def until(condition, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


def test_hints_reach_it_and_their_end_lets_it_end(tmp_path):
    async def scenario():
        shipper = child(_COPY, tmp_path / "out")
        for n in range(1, 4):
            shipper.hint()
            await until(lambda n=n: (tmp_path / "out").exists() and (tmp_path / "out").read_bytes() == b"\n" * n)
        assert await shipper.stop()
        shipper.hint()

    asyncio.run(scenario())


def test_hints_never_wait_for_a_child_that_does_not_read():
    async def scenario():
        shipper = child("import sys; sys.stdin.read()")
        await asyncio.sleep(0.3)
        for _ in range(100_000):
            shipper.hint()
        assert await shipper.stop()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_what_was_hinted_while_none_ran_reaches_the_next(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ship_child, "_RESTART_S", (0.2, 0.4))
    once = f"import os, sys\nif not os.path.exists(sys.argv[2]): open(sys.argv[2], 'w'); sys.exit(7)\n{_COPY}"

    async def scenario():
        shipper = child(once, tmp_path / "out", tmp_path / "failed")
        await until(lambda: "ended with code 7" in caplog.text)
        shipper.hint()
        await until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_bytes() == b"\n")
        assert await shipper.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [f"{_COPY}sys.exit(69)", "import sys; sys.exit(69)"])
def test_one_that_could_not_send_everything_is_told(code, tmp_path):
    async def scenario():
        shipper = child(code, tmp_path / "out")
        await asyncio.sleep(0.3)
        assert not await shipper.stop()

    asyncio.run(scenario())


def test_one_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(ship_child, "_STOP_S", 0.2)

    async def scenario():
        shipper = child("import time; time.sleep(600)")
        await asyncio.sleep(0.2)
        start_s = time.monotonic()
        assert not await shipper.stop()
        assert time.monotonic() - start_s < 5

    asyncio.run(scenario())
