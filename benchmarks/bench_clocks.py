"""Times of random clocks to random other clocks: a guest that is slewed, set, stopped and restored, and its host.

The histories are made as in the tests, and each answer is compared with the truth. First one process, user and system
CPU, of the conversions alone: neither the histories nor the graph of each are part of it. Then many more histories with
few conversions each, on all CPUs: `--histories 1000000` is about an hour on two.
"""

import multiprocessing
import time
from typing import NamedTuple

from benchmarks.base import Options, Reach, Row, log
from tests.consumers.clocks import _random

_PAIRS = 20
_PER_PAIR = 5_000
_PER_HISTORY = _PAIRS * _PER_PAIR
_MANY_SEED = 100_000_000
_BLOCK = 500
_NAMED_MAX = 20


class _Judged(NamedTuple):
    asked: int
    answered: int
    wrong: int
    seeds: list[int]


def run(options: Options) -> list[Row]:
    """Return conversions a second, how many had an answer, and how many of these lay outside their bound."""
    return [*_rates(10 if options.quick else 100), *_many(options.histories or (1_000 if options.quick else 10_000))]


def _many(histories: int) -> list[Row]:
    start = time.monotonic()
    blocks = [range(at, min(at + _BLOCK, histories)) for at in range(0, histories, _BLOCK)]
    asked, answered, wrong, seeds, done = 0, 0, 0, [], 0
    with multiprocessing.Pool() as pool:
        for block, found in zip(blocks, pool.imap(_judge, blocks), strict=True):
            asked, answered, wrong = asked + found.asked, answered + found.answered, wrong + found.wrong
            seeds += found.seeds
            done += len(block)
            if done % 50_000 < _BLOCK or done == histories:
                took_s = time.monotonic() - start
                log(f"  {done:,} histories, {answered:,} answers, {wrong} outside their bound, {took_s:.0f} s")
    if seeds:
        log(f"  seeds of these: {', '.join(map(str, seeds[:_NAMED_MAX]))}")
    how = (
        f"{histories:,} histories of 10 min, 4 clocks of each machine, 6 pairs of these, 30 times each; {asked:,} asked"
    )
    return [Row("answered outside of the bound, many", [float(wrong)], f"of {answered:,}", Reach(0), how)]


def _judge(block: range) -> _Judged:
    asked, answered, wrong, seeds = 0, 0, 0, []
    for seed in range(_MANY_SEED + block.start, _MANY_SEED + block.stop):
        history = _random.history(seed, 3)
        for batch in _random.batches(history, 6, 30):
            good, bad, _ = _random.judged(batch, history.graph.convert_many(batch[2], batch[0], batch[1]))
            asked, answered, wrong = asked + len(batch[2]), answered + good, wrong + bad
            if bad:
                seeds.append(seed)
    return _Judged(asked, answered, wrong, seeds)


def _rates(histories: int) -> list[Row]:
    rates, answered, wrong, widths = [], 0, 0, []
    for seed in range(1_000_000, 1_000_000 + histories):
        history = _random.history(seed)
        batches = _random.batches(history, _PAIRS, _PER_PAIR)
        start = time.process_time()
        found = [history.graph.convert_many(shown, source, target) for source, target, shown, _ in batches]
        rates.append(_PER_HISTORY / (time.process_time() - start) / 1e6)
        for batch, column in zip(batches, found, strict=True):
            good, bad, bounds = _random.judged(batch, column)
            answered, wrong = answered + good, wrong + bad
            widths += [float(value) for value in bounds[::1000]]
    count = histories * _PER_HISTORY
    log(f"  {count:,} conversions, {answered:,} answered, {wrong} outside their bound")
    how = f"{histories} histories of 10 min, {_PAIRS} pairs of clocks each, in columns of {_PER_PAIR:,}"
    return [
        Row("clock conversions", rates, "M/s/core", Reach(1, at_least=True), how),
        Row("answered outside of the bound", [float(wrong)], f"of {answered:,}", Reach(0), how),
        Row("answered", [100 * answered / count], "%", None, "the rest: steps, times shown twice"),
        Row(
            "bound of an answer",
            widths,
            "ns",
            None,
            "rates known to be steady for all local readings, half of the exchanges",
        ),
    ]
