"""Times of random clocks to random other clocks: a guest that is slewed, set, stopped and restored, and its host.

The histories are made as in the tests, and each answer is compared with the truth as well. One process, user and system
CPU, of the conversions alone: neither the histories nor the graph of each are part of it.
"""

import time

from benchmarks.base import Options, Reach, Row, log
from tests.consumers.clocks import _random

_PER_HISTORY = 100_000


def run(options: Options) -> list[Row]:
    """Return conversions a second, how many had an answer, and how many of these lay outside their bound."""
    histories = 10 if options.quick else 100
    rates, answered, wrong, widths = [], 0, 0, []
    for seed in range(1_000_000, 1_000_000 + histories):
        history = _random.history(seed)
        batches = _random.batches(history, _PER_HISTORY)
        start = time.process_time()
        found = [history.graph.convert_many(shown, source, target) for source, target, shown, _ in batches]
        rates.append(_PER_HISTORY / (time.process_time() - start) / 1e6)
        for batch, column in zip(batches, found, strict=True):
            good, bad, bounds = _random.judged(batch, column)
            answered, wrong = answered + good, wrong + bad
            widths += [float(value) for value in bounds[::1000]]
    count = histories * _PER_HISTORY
    log(f"  {count:,} conversions, {answered:,} answered, {wrong} outside their bound")
    how = f"{histories} histories of 10 min, 20 pairs of clocks each, in columns of {_PER_HISTORY // 20:,}"
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
