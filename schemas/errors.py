"""One base error, leaves by who must act, and the exit code that each gives a command."""

from typing import ClassVar


class HypocenterError(Exception):
    """Base of every error this project raises on purpose; its text is one sentence fit to print."""

    exit_code: ClassVar[int] = 1


class BadInputError(HypocenterError):
    """The bytes are wrong: poison, quarantined as a dead letter, never retried.

    `reason` is a short stable word for the `dead_letters` table.
    """

    exit_code = 65

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UsageError(HypocenterError):
    """A flag, a config key or a path is wrong: the user must act (exit 2)."""

    exit_code = 2


class AccessError(HypocenterError):
    """The machine does not let us read a surface (exit 77); the text names the remedy."""

    exit_code = 77


class UnavailableError(HypocenterError):
    """The world does not answer: no broker, no such log (exit 69)."""

    exit_code = 69


class StorageError(HypocenterError):
    """The disk refuses: full, read-only, failing (exit 74). Nothing already collected is lost."""

    exit_code = 74


class DamagedError(StorageError):
    """A file of ours cannot be read as it was written; the text names it. What else there is goes on."""


class LockedError(HypocenterError):
    """Another writer owns this directory (exit 75)."""

    exit_code = 75
