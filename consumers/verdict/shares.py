"""Where the time of one thread of the host went, as far as that is known.

Of a vCPU's thread the table tells six things apart: G in the guest, X on a CPU but in KVM or the VMM, W ready and
waiting for a CPU, S asleep in the host for another reason than a guest that is idle, T paused, stopped or frozen, H
halted by the guest. Counters and samples seldom say which of them it was: each mass is a share of the time that was
one of its letters. Who knows less has the same masses under more letters, so bounds only widen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

LETTERS: Final = "GXWSTH"
#: What each letter is, for people.
NAMES: Final = {
    "G": "in the guest",
    "X": "in KVM or the VMM",
    "W": "waiting for a CPU of the host",
    "S": "asleep in the host",
    "T": "paused, stopped or frozen",
    "H": "halted by the guest",
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the time by letters, such as `GX`, which sum to at most 1; each sum may be wrong by `error`."""

    masses: Mapping[str, float]
    error: float = 0.0

    def at_least(self, letters: str) -> float:
        """Return the share that was certainly one of `letters`."""
        known = sum(mass for key, mass in self.masses.items() if set(key) <= set(letters))
        return max(0.0, known - self.error)

    def at_most(self, letters: str) -> float:
        """Return the share that can have been one of `letters`."""
        others = sum(mass for key, mass in self.masses.items() if set(key).isdisjoint(letters))
        return min(1.0, 1.0 - others + self.error)

    @property
    def known(self) -> float:
        """Return the share of which anything is known."""
        return sum(mass for key, mass in self.masses.items() if set(key) != set(LETTERS))


def added(parts: Iterable[tuple[str, float]], error: float) -> Shares:
    """Return the shares of `parts` of letters and mass, whatever the order of the letters; no mass is left out."""
    masses: dict[str, float] = {}
    for letters, mass in parts:
        if mass > 0:
            key = "".join(sorted(letters, key=LETTERS.index))
            masses[key] = masses.get(key, 0.0) + mass
    return Shares(masses, error)


def part(shares: Shares, of_all: float) -> Shares:
    """Return what `shares` of a part of the time, so much of all of it, say of all."""
    masses = [(letters, mass * of_all) for letters, mass in shares.masses.items()]
    return added([*masses, (LETTERS, 1 - of_all)], shares.error * of_all)


def named(letters: str) -> str:
    """Return what `letters` are, for people."""
    return " or ".join(NAMES[letter] for letter in letters)
