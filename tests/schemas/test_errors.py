import os

import pytest

from schemas import errors

LEAVES = [each for each in errors.HypocenterError.__subclasses__() if each.__module__ == errors.__name__]


def test_an_exit_code_has_one_meaning():
    codes = [leaf.exit_code for leaf in LEAVES]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 130} & set(codes)  # done, a book that does not close, interrupted


@pytest.mark.parametrize(
    ("leaf", "code"),
    [
        (errors.UsageError, 2),  # as argparse ends
        (errors.BadInputError, os.EX_DATAERR),
        (errors.UnavailableError, os.EX_UNAVAILABLE),
        (errors.StorageError, os.EX_IOERR),
        (errors.LockedError, os.EX_TEMPFAIL),
        (errors.AccessError, os.EX_NOPERM),
    ],
)
def test_an_exit_code_is_that_of_sysexits(leaf, code):
    assert leaf.exit_code == code


def test_bad_input_keeps_reason_and_detail_apart():
    error = errors.BadInputError("codec", "unknown codec 9")
    assert (error.reason, error.detail, str(error)) == ("codec", "unknown codec 9", "codec: unknown codec 9")
