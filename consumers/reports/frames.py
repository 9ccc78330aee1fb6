"""Stacks: which frames of a dump are the dump's own, and which frame a report is known by.

Names are of functions of the kernel, as `%pS` prints them (lib/vsprintf.c), of trees 3.x to 7.x on x86, arm64, arm,
powerpc, riscv and s390. Compiler suffixes (`.constprop.0`, `.cold`, `.isra.3`) are no part of a name.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import re2

#: Most frames kept of one stack.
FRAMES_MAX: Final = 32


class Frame(NamedTuple):
    """One frame; `module` is empty for the kernel itself."""

    function: str
    module: str


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


# What prints a stack, and what found that one is to be printed.
_MACHINERY: Final = _compiled(
    r"_*(?:show_(?:regs|stack|trace|stack_log_lvl)\w*|show_(?:state|workqueue|one_worker|cpu_pool)\w*|dump_stack\w*|dump_backtrace\w*"
    r"|dump_cpu_task|dump_header|sched_show_task|print_(?:cpu_stall|other_cpu_stall|address|hung)\w*"
    r"|nmi_(?:cpu_backtrace|trigger_cpumask|handle|raise_cpu|panic)\w*|arch_trigger_\w*backtrace\w*|trigger_\w*backtrace\w*"
    r"|backtrace_\w+|ipi_cpu_backtrace|rcu_dump_\w+|rcu_check_\w+|rcu_(?:sched|flavor_sched)_clock_irq|rcu_pending"
    r"|rcu_cpu_stall\w*|check_cpu_stall|synchronize_rcu_expedited_wait|watchdog(?:_\w+)?|watchdog_timer_fn|softlockup_\w+|lockup_detector_\w+"
    r"|check_hung_\w+|kthread_should_stop|unwind_backtrace|default_do_nmi|exc_nmi|do_nmi|end_repeat_nmi|perf_event_nmi_handler"
    r"|v?panic|check_panic_on_warn|(?:end_report|kasan_report|warn|warn_slowpath)\w*|report_bug|handle_bug|die|oops_end|oops_enter|no_context"
    r"|page_fault_oops|kernelmode_fixup_or_oops|bad_area_nosemaphore|printk|vprintk\w*|wq_watchdog\w*|csd_lock_print_extended|csd_lock_wait_toolong"
    r"|hrtimer_(?:run_queues|interrupt|run_softirq)|hrtimer_run_queues|run_hrtimer|__hrtimer_\w+|tick_(?:sched|nohz|periodic|handle|do|init)\w*"
    r"|update_process_times|perf_\w*tick|local_apic_timer_interrupt|scheduler_tick|sched_tick|account_\w+"
    r"|call_timer_fn|expire_timers|arch_timer_handler\w*|handle_percpu_devid_irq|timer_interrupt|riscv_timer_interrupt)"
)
# Where an interrupt came in: what is above it in a dump is not what was going on.
_ENTRY: Final = _compiled(
    r"_*(?:asm_(?:sysvec|exc|common)\w*|sysvec_\w+|smp_apic_timer_interrupt|apic_timer_interrupt|smp_\w+_interrupt|reschedule_interrupt"
    r"|call_function\w*_interrupt|common_interrupt|ret_from_intr|do_IRQ|handle_irq\w*|generic_handle_\w+|handle_domain_irq|handle_arch_irq"
    r"|el[01]h?_?(?:64|32|t|h)*_?(?:irq|fiq|interrupt|sync)\w*|gic_handle_irq|call_on_irq_stack|do_interrupt_handler|irq_svc|irq_usr"
    r"|hardware_interrupt_\w+|decrementer_common\w*|interrupt_entry|error_entry|nmi|nmi_restore|asm_exc_nmi|end_repeat_nmi"
    r"|ret_from_exception|handle_exception|do_irq|do_ext_irq|ext_int_handler|riscv_intc_irq|handle_riscv_irq)"
)
# Helpers that wait, spin or schedule, and locks that many different victims stand at.
_WAITING: Final = _compiled(
    r"_*(?:\w*schedule(?:_\w+)?|context_switch|switch_to\w*|io_schedule\w*|msleep\w*|usleep_range\w*|\w*s?sleep_on\w*"
    r"|(?:\w+_)?wait_on_\w+|(?:folio|bit|wake_up_and|do|page|prepare_to|finish|submit_bio|csd_lock|kvm|inode_dio|fence|flush_work|sb)_wait\w*"
    r"|wait|wait_(?:for|event|woken|common|queue|current|transaction|iff)\w*|\w*fdatawait\w*|\w*_and_wait(?:_range)?|submit_bio_wait|do_wait\w*"
    r"|mutex_\w+|\w*mutex_lock\w*|rtnl_lock\w*|down(?:_\w+)?|rwsem_\w+|rt_mutex\w*|rtlock\w*|percpu_down\w*|percpu_rwsem\w*|rwbase_\w+"
    r"|\w*spin_lock\w*|\w*spin_trylock\w*|\w*spin_unlock\w*|\w*spin_rq_lock\w*|raw_spin_\w+|queued_\w+|native_\w*queued\w*|pv_\w*queued\w*|do_raw_\w+|lock_sock\w*"
    r"|\w*(?:read|write)_lock\w*|lock_\w*acquire\w*|lock_release|osq_lock|cpu_relax|rep_nop|delay_\w+|delay|udelay|const_udelay|ndelay"
    r"|synchronize_\w+|rcu_barrier\w*|wait_rcu_gp|cond_synchronize\w*|rcu_sync_\w+|cond_resched\w*|preempt_\w+|irqentry_\w+|stack_trace_\w+"
    r"|smp_call_(?:function|on)\w*|on_each_cpu\w*|csd_lock_\w+|csd_lock|generic_exec_single|kvm_wait|xen_poll\w*|hv_qlock\w*"
    r"|kasan_\w+|sanitizer_\w+|trace_\w+|bpf_trace\w*|blk_mq_get_tag|nmi_\w+)"
)
# Of frames that are the dump's own, or the interrupt's.
_DUMP: Final = 1
_CAME_IN: Final = 2
_SUFFIXES: Final = (".constprop", ".cold", ".isra", ".part", ".llvm", ".lto")


def own_name(function: str) -> str:
    """Return `function` without what a compiler put behind it."""
    for suffix in _SUFFIXES:
        function = function.partition(suffix)[0]
    return function


def below_machinery(stack: Sequence[Frame]) -> list[Frame]:
    """Return `stack`, innermost first, without the dump's own frames and the interrupt that it came in by."""
    begin = 0
    dumping = False
    sides = [_side(frame.function) for frame in stack]
    for i, side in enumerate(sides):
        if side == _DUMP:
            dumping = True
        elif side == _CAME_IN and dumping:
            begin, dumping = i + 1, False
    below = [frame for frame, side in zip(stack[begin:], sides[begin:], strict=True) if not side]
    # All of it machinery: a stack cut behind the interrupt; what the registers name is before.
    return below or [frame for frame, side in zip(stack, sides, strict=True) if not side]


def anchor(functions: Sequence[str]) -> str:
    """Return the first of `functions` that says what was being done: below waiting, spinning and locks; empty for none.

    `functions` are a report's frames, innermost first.
    """
    for function in functions:
        name = own_name(function)
        if _WAITING.fullmatch(name) is None and _ENTRY.fullmatch(name) is None:
            return name
    return ""


# Asked again for the whole stack with each of its frames. A guest writes the names, so what is remembered is bounded.
@lru_cache(maxsize=1 << 12)
def _side(function: str) -> int:
    name = own_name(function)
    if _MACHINERY.fullmatch(name) is not None:
        return _DUMP
    return _CAME_IN if _ENTRY.fullmatch(name) is not None else 0
