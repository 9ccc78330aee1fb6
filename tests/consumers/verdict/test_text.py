"""For whom a blocked task waits is said by the frame in which it waits, and by none further out (stacks as of 5.x, 6.x)."""

import pytest

from consumers.reports.report import Kind
from consumers.verdict.text import QUESTIONS
from tests.consumers.verdict._cases import incident, report

WAITS = ("__schedule", "schedule")
IO = (*WAITS, "io_schedule")
CORE = ("dump_emit", "elf_core_dump", "do_coredump", "get_signal")
STACKS = (
    ("a daemon's answer", "guest_daemon", (*WAITS, "request_wait_answer", "__fuse_simple_request", "fuse_lookup_name")),
    ("fanotify", "guest_daemon", (*WAITS, "fanotify_handle_event", "fsnotify", "do_dentry_open")),
    ("autofs", "guest_daemon", (*WAITS, "autofs_wait", "autofs_mount_wait", "autofs_d_manage")),
    (
        "a helper", "guest_daemon",
        (*WAITS, "schedule_timeout", "__wait_for_common", "wait_for_completion_state", "call_usermodehelper_exec"),
    ),
    ("a debugger", "design", (*WAITS, "ptrace_stop", "ptrace_notify")),
    ("the freezer", "design", (*WAITS, "__refrigerator", "get_signal")),
    ("threads of a dump", "design", (*WAITS, "coredump_task_exit", "do_exit")),
    ("a dump's helper", "design", (*WAITS, "wait_for_dump_helpers", "do_coredump")),
    ("a dump that writes", None, (*IO, "blk_mq_get_tag", "__blk_mq_alloc_requests", "ext4_bio_write_page", *CORE)),
    ("a dump in a lock", None, (*WAITS, "schedule_preempt_disabled", "__mutex_lock", "ext4_file_write_iter", *CORE)),
    ("a dump over a network", None, (*WAITS, "rpc_wait_bit_killable", "nfs_file_write", *CORE)),
    ("FUSE that passes through", None, (*IO, "folio_wait_bit_common", "filemap_read", "fuse_passthrough_read_iter")),
    ("a page of FUSE", None, (*IO, "folio_wait_bit_common", "fuse_wait_on_folio_writeback")),
    ("a lock in FUSE", None, (*WAITS, "schedule_preempt_disabled", "__mutex_lock", "fuse_lock_inode", "fuse_lookup")),
    ("a file system below fanotify", None, (*WAITS, "nfs_wait_client_init", "fanotify_handle_event")),
    ("a daemon of the host", None, (*WAITS, "request_wait_answer", "virtio_fs_enqueue_req")),
)  # fmt: skip


def says(name, frames, **more):
    return QUESTIONS[name][0](incident(report(Kind.HUNG_TASK, frames=frames, **more)))


@pytest.mark.parametrize(("question", "frames"), [each[1:] for each in STACKS], ids=[each[0] for each in STACKS])
def test_a_task_waits_for_whom_its_innermost_frame_says(question, frames):
    assert [name for name in ("guest_daemon", "design") if says(name, frames)] == ([question] if question else [])


def test_a_note_of_a_core_dump_says_so_where_the_stack_waits_for_nothing_else():
    notes = ("Blocked by coredump.",)
    assert says("design", (), notes=notes)
    assert says("design", (*WAITS, "do_exit"), notes=notes)
    assert not says("design", (*IO, "folio_wait_bit_common", "do_exit"), notes=notes)
    assert not says("design", (*WAITS, "schedule_preempt_disabled", "__mutex_lock", "do_exit"), notes=notes)


def test_a_stack_shows_a_place_in_the_kernel_or_none():
    assert QUESTIONS["no_place"][0](incident())
    assert QUESTIONS["no_place"][0](incident(numbers={"in_user_space": 1}, frames=("asm_sysvec_apic_timer_interrupt",)))
    assert not QUESTIONS["no_place"][0](incident(frames=("inet_diag_dump",)))
