import ctypes
import errno

import pytest

from producers.bpf import libbpf as bpf_libbpf
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


def test_what_the_verifier_said_last_is_the_reason_and_a_lockdown_is_told(libbpf, monkeypatch, tmp_path):
    monkeypatch.setattr(bpf_libbpf, "_LOCKDOWN", tmp_path / "lockdown")
    failed = "prog 'on_switch': BPF program load failed: Invalid argument"
    steps = "1: (b7) r0 = 0\n" * 50000
    log = f"{steps}unknown func bpf_probe_read_kernel#113\nprocessed 9 insns\n"

    def refused():
        libbpf._said = [failed]
        said = ctypes.create_string_buffer(
            f"prog 'on_switch': -- BEGIN PROG LOAD LOG --\n{log}-- END PROG LOAD LOG --\n".encode()
        )
        # A va_list without arguments: the text has no %.
        libbpf._collect(0, ctypes.addressof(said), ctypes.addressof(ctypes.create_string_buffer(64)))
        ctypes.set_errno(errno.EINVAL)
        return str(libbpf.refusal("y"))

    assert refused() == f"y: {failed} (unknown func bpf_probe_read_kernel#113)"
    (tmp_path / "lockdown").write_text("none integrity [confidentiality]\n")
    assert refused().endswith(
        f"; the kernel is locked down, so that no program may read its memory ({tmp_path}/lockdown)"
    )
    (tmp_path / "lockdown").write_text("none [integrity] confidentiality\n")
    assert refused().endswith("#113)")


def test_what_is_kept_of_its_words_has_a_bound(libbpf, monkeypatch):
    monkeypatch.setattr(bpf_libbpf, "_SAID_BYTES_MAX", 1)
    for _ in range(5):
        libbpf.open_object(b"no ELF", "x")
    assert len(libbpf._said) == 1
    libbpf.refusal("")
    assert libbpf._said == []
