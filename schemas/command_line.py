"""The command line of both commands: how it is read, and how a command ends.

No prefix of a flag is guessed at, a typo is answered with the nearest word.
"""

import argparse
import contextlib
import difflib
import errno
import importlib
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TextIO, cast

from schemas.errors import HypocenterError, StorageError


class Parser(argparse.ArgumentParser):
    """Like its base, but strict about flags, and helpful about those that do not exist."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse `args`; a flag that does not exist is said before anything that is missing because of it."""
        for each in args or ():
            if not _is_text(each):
                self.error(f"{os.fsencode(each)!r:.100} is no text in UTF-8")
        for word in self._own(args or ()):
            flag = word.partition("=")[0]
            if flag not in self._option_string_actions:
                self._refuse(f"there is no flag {flag}", flag, self._option_string_actions)
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"nothing takes {rest[0]!r} here")
        return found, rest

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the program; that nobody reads its help is no error."""
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        super().exit(status, message)

    # What looks like a flag, and is not for the parser of a verb; a word with a space in it is some SQL.
    def _own(self, args: Sequence[str]) -> Iterable[str]:
        for word in args:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return
            if word.startswith("--") and " " not in word and "\n" not in word:
                yield word

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.metavar if isinstance(action.metavar, str) else action.dest
            known = [str(each) for each in action.choices]
            self._refuse(f"{'/'.join(action.option_strings) or name}: there is no {value}", value, known)

    def _refuse(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        near = difflib.get_close_matches(word, known, n=1)
        self.error(f"{what}; did you mean {near[0]}?" if near else f"{what}; there is {', '.join(known)}")


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


class _StdoutError(OSError):
    """What is printed cannot be written."""


class _Stdout:
    """Standard output whose own errors are told from those of everything else; the rest of it is `inner`'s."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        try:
            return self._inner.write(text)
        except OSError as e:
            raise _StdoutError(e.errno, e.strerror) from e

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._inner.flush()
        except OSError as e:
            raise _StdoutError(e.errno, e.strerror) from e


def open_streams() -> None:
    """Make stdout ready for `ended`; it and stderr are open behind it, where they are closed as what nobody reads."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout.reconfigure(encoding="utf-8")  # rows are data, whatever the locale
        sys.stdout = cast("TextIO", _Stdout(sys.stdout))


def ended(name: str, run: Callable[[], int]) -> int:
    """Return the exit code of `run`, or of what ended it, which is one line on stderr.

    Of an OSError that nobody has named it is 74; where stdout cannot be written too, but where whoever read it has seen
    enough that of `run`, 0 before its end; and 130 where a SIGINT came.
    """
    code = 0
    try:
        code = run()
        sys.stdout.flush()
    except _StdoutError as e:
        if e.errno != errno.EPIPE:
            code = StorageError.exit_code
            _say(f"{name}: stdout: {e.strerror}")
        _drop_stdout()
    except HypocenterError as e:
        code = e.exit_code
        _say(f"{name}: {e}")
    except KeyboardInterrupt:
        code = 130
    except OSError as e:
        code = StorageError.exit_code
        _say(f"{name}: {e.filename + ': ' if e.filename else ''}{e.strerror or e}")
    except RuntimeError as e:
        if str(e) != "Query interrupted":  # DuckDB's for a SIGINT
            raise
        code = 130
    # What was printed before an error; whether that arrives changes nothing of it.
    try:
        sys.stdout.flush()
    except _StdoutError:
        _drop_stdout()
    return code


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


# What waits in it would else fail again at the end.
def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument(
        "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version and exit"
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print("hypocenter", version() or "of a tree that is not installed")
        parser.exit()


def version() -> str | None:
    """Return the version of this program, None of a tree that is not installed."""
    # Here, because it costs a start megabytes, and few ask.
    metadata = importlib.import_module("importlib.metadata")
    try:
        found: str = metadata.version("hypocenter")
    except metadata.PackageNotFoundError:
        return None
    return found


def positive_int(text: str) -> int:
    """Return the number that a flag gives, for argparse's `type`."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return number


def positive_float(text: str) -> float:
    """Return the number that a flag gives, for argparse's `type`."""
    number = _float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")
    return number


def float_from_0(text: str) -> float:
    """Return the number that a flag gives, for argparse's `type`."""
    number = _float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"a number from 0 on, not {text!r}")
    return number


# No number of this world is NaN, which no comparison lets pass.
def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
