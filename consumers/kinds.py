"""Which kinds of rows a partition has, and who brought each: what a machine can name is bounded, and its rows are not.

A kind is a table with certain columns. What a kernel, a program or whoever speaks for one describes becomes a table of
the lake, with files of its own in each commit, and columns of it in every query.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

log = logging.getLogger(__name__)
#: A kernel with all its modules has some 3,700 kinds of events; the next one has a few hundred others.
OF_MACHINE_MAX: Final = 8_192
OF_PARTITION_MAX: Final = 4 * OF_MACHINE_MAX
#: Of one table: kernels differ in few of their formats, and in those a few times in ten years.
OF_TABLE_MAX: Final = 64
OF_TABLE_AND_MACHINE_MAX: Final = 8
# Whoever invents machines has no line for each of them.
_TOLD_MAX: Final = 1024


class Kinds:
    """The kinds of one partition, by table and columns (`columns_id`) the machine that brought them."""

    def __init__(self, brought: Mapping[str, str]) -> None:
        self._brought = dict(brought)
        self._new: dict[str, str] = {}
        self._machines = Counter(self._brought.values())
        self._tables = Counter(map(_table, self._brought))
        self._of_both = Counter((_table(kind), machine) for kind, machine in self._brought.items())
        self._told: set[str] = set()

    def has_room(self, machines: Collection[str], table: str, columns: str) -> bool:
        """Return whether rows of these `machines` may be rows of `table` with `columns`: it is known, or one has room.

        What a machine may not is what others would pay for; what another one brought it may use.
        """
        return f"{table}:{columns}" in self._brought or any(self._may(each, table) for each in machines)

    def admit(self, machines: Collection[str], table: str, columns: str) -> bool:
        """Return the same, and note who brought it."""
        kind = f"{table}:{columns}"
        if kind in self._brought:
            return True
        machine = next((each for each in sorted(machines) if self._may(each, table)), None)
        if machine is None:
            self._tell(machines, table)
            return False
        self._brought[kind] = self._new[kind] = machine
        self._machines[machine] += 1
        self._tables[table] += 1
        self._of_both[table, machine] += 1
        return True

    def take_new(self) -> dict[str, str]:
        """Return what was noted since the last call."""
        new, self._new = self._new, {}
        return new

    def _may(self, machine: str, table: str) -> bool:
        return (
            self._machines[machine] < OF_MACHINE_MAX
            and len(self._brought) < OF_PARTITION_MAX
            and self._tables[table] < OF_TABLE_MAX
            and self._of_both[table, machine] < OF_TABLE_AND_MACHINE_MAX
        )

    # Once for each of the first machines; each commit has its dead letter.
    def _tell(self, machines: Collection[str], table: str) -> None:
        for machine in sorted({*machines} - self._told)[: _TOLD_MAX - len(self._told)]:
            self._told.add(machine)
            log.warning(
                "machine %s has brought %d kinds of rows: no more tables and columns, as of %s, for what is new of it;"
                " its events are rows of trace_unknown, its records raw or dead letters",
                machine, self._machines[machine], table,
            )  # fmt: skip


def _table(kind: str) -> str:
    return kind.rpartition(":")[0]
