"""Which parts of a program are loaded: by the arguments of the kernel's own tracepoints, read from its BTF."""

from pathlib import Path

import pytest

from producers.bpf import parts
from producers.bpf import program as bpf_program
from producers.bpf.parts import fits
from schemas.errors import AccessError
from tests.producers.bpf._bpf import skip_unless_loadable


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("on_issue", 7, True),
        ("on_issue", None, False),
        ("on_issue__1", 1, True),
        ("on_issue__1", 2, False),
        ("on_issue__2", 2, True),
        ("on_issue__2", None, False),
        ("on__1__issue", 7, True),
    ],
)
def test_a_part_fits_where_its_tracepoint_has_the_arguments_it_names(name, arguments, wanted):
    assert fits(name, arguments) is wanted


@pytest.fixture
def loaded():
    skip_unless_loadable()
    made = []

    def load(name):
        made.append(bpf_program.Program(name, 4096, {}))
        return made[-1]

    yield load
    for each in made:
        each.close()


def names_of(program):
    return {program._libbpf.bpf_program__name(part).decode() for part in program._parts.attached}


@pytest.mark.kernel
def test_of_several_forms_one_is_loaded(loaded):
    program = loaded("block-io")
    # Since Linux 5.11, also in this kernel: the request alone.
    assert names_of(program) == {
        "on_complete",
        *(f"on_{event}__1" for event in ("insert", "issue", "requeue", "merge")),
    }
    assert program.active == ["block_rq_insert", "block_rq_issue", "block_rq_merge", "block_rq_requeue"]
    assert program.missing == []


@pytest.mark.kernel
def test_a_kernel_with_the_older_form_gets_the_older_part(loaded, monkeypatch):
    monkeypatch.setattr(parts.Btf, "arguments", lambda self, tracepoint: 2)
    # Chosen as for such a kernel; this one then refuses what looks for a second argument.
    with pytest.raises(AccessError, match="block-io cannot be loaded"):
        loaded("block-io")


@pytest.mark.kernel
def test_a_program_whose_tracepoints_are_all_missing_is_refused(loaded, monkeypatch):
    monkeypatch.setattr(parts.Btf, "arguments", lambda self, tracepoint: None)
    with pytest.raises(AccessError, match="hang: this kernel has none of its tracepoints"):
        loaded("hang")


@pytest.mark.kernel
def test_without_optional_parts_a_program_has_none_to_tell_of(loaded):
    program = loaded("sched-delay")
    assert (program.active, program.missing) == ([], [])
    assert names_of(program) == {"on_new_task", "on_switch", "on_move"}


@pytest.mark.kernel
def test_a_walk_goes_over_everything_when_it_is_due(loaded):
    program = loaded("vcpu")
    program.attach()
    before = program.runs()
    stats = Path("/proc/sys/kernel/bpf_stats_enabled")
    was = stats.read_text()
    try:
        stats.write_text("1")
        program.run_own(10.0)
        walked = program.runs().runs - before.runs
    finally:
        stats.write_text(was)
    # Once for each thread there is, and once at the end; switches are runs too.
    assert walked > len(list(Path("/proc").glob("[0-9]*")))
    assert program.active == ["sched_switch"]


@pytest.mark.kernel
def test_own_parts_run_when_they_are_due(loaded, monkeypatch):
    program = loaded("block-io")
    program.attach()
    ran = []
    run = parts.run
    monkeypatch.setattr(parts, "run", lambda *args: ran.append(args) or run(*args))
    for now_s in (10.0, 10.9, 11.0, 11.5, 12.0):
        program.run_own(now_s)
    assert len(ran) == 3
