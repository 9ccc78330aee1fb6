import ctypes
import errno

import pytest

from producers import bpf_libbpf
from schemas.errors import AccessError


@pytest.fixture
def libbpf():
    try:
        return bpf_libbpf.load()
    except AccessError as e:
        pytest.skip(str(e))


def test_a_library_that_is_not_there_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setattr(bpf_libbpf, "_LIBRARY", "libbpf.so.none")
    with pytest.raises(AccessError, match=r"loaded by libbpf.so.none .*apt-get install libbpf1"):
        bpf_libbpf.Libbpf()


def test_a_library_that_is_too_old_is_said(monkeypatch):
    monkeypatch.setitem(bpf_libbpf._FUNCTIONS, "bpf_object__of_tomorrow", (None, []))
    with pytest.raises(AccessError, match="undefined symbol: bpf_object__of_tomorrow"):
        bpf_libbpf.Libbpf()


def test_a_refusal_is_in_the_words_of_the_library(libbpf):
    assert not libbpf.open_object(b"no ELF", "my-program")
    said = str(libbpf.refusal("x cannot be opened"))
    assert said.startswith("x cannot be opened: ")
    assert "my-program" in said
    # They are those of one refusal.
    ctypes.set_errno(errno.ENOMEM)
    assert str(libbpf.refusal("y")) == "y: Cannot allocate memory"


def test_a_missing_right_is_said_as_such_and_the_verifier_is_not_taken_for_one(libbpf):
    ctypes.set_errno(errno.EPERM)
    assert "it takes CAP_BPF and CAP_PERFMON" in str(libbpf.refusal("y"))
    libbpf._said = ["prog 'on_switch': BPF program load failed: Permission denied", "-- BEGIN PROG LOAD LOG --"]
    ctypes.set_errno(errno.EACCES)
    assert str(libbpf.refusal("y")) == "y: prog 'on_switch': BPF program load failed: Permission denied"


def test_what_is_kept_of_its_words_has_a_bound(libbpf, monkeypatch):
    monkeypatch.setattr(bpf_libbpf, "_SAID_BYTES_MAX", 1)
    for _ in range(5):
        libbpf.open_object(b"no ELF", "x")
    assert len(libbpf._said) == 1
    libbpf.refusal("")
    assert libbpf._said == []
