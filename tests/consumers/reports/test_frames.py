import pytest

from consumers.reports.frames import Frame, anchor, below_machinery


def below(functions):
    return [frame.function for frame in below_machinery([Frame(each, "") for each in functions.split()])]


@pytest.mark.parametrize(
    ("stack", "rest", "known_by"),
    [
        (
            (
                "dump_stack nmi_cpu_backtrace.cold nmi_trigger_cpumask_backtrace rcu_dump_cpu_stacks rcu_check_callbacks"
                " update_process_times tick_sched_timer __hrtimer_run_queues hrtimer_interrupt smp_apic_timer_interrupt"
                " apic_timer_interrupt spin_here do_work"
            ),
            "spin_here do_work",
            "spin_here",
        ),
        (
            (
                "dump_stack_lvl panic watchdog_timer_fn __hrtimer_run_queues hrtimer_interrupt"
                " __sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt __do_softirq"
            ),
            "__do_softirq",
            "__do_softirq",
        ),
        (
            (
                "dump_backtrace show_stack dump_stack_lvl watchdog_timer_fn hrtimer_interrupt arch_timer_handler_virt"
                " handle_percpu_devid_irq gic_handle_irq el1h_64_irq queued_spin_lock_slowpath net_tx"
            ),
            "queued_spin_lock_slowpath net_tx",
            "net_tx",
        ),
        (
            (
                "__schedule schedule io_schedule folio_wait_bit_common folio_wait_writeback __filemap_fdatawait_range"
                " file_write_and_wait_range ext4_sync_file"
            ),
            (
                "__schedule schedule io_schedule folio_wait_bit_common folio_wait_writeback __filemap_fdatawait_range"
                " file_write_and_wait_range ext4_sync_file"
            ),
            "ext4_sync_file",
        ),
        (
            "smp_call_function_many_cond on_each_cpu_cond_mask change_page_attr_set_clr",
            "smp_call_function_many_cond on_each_cpu_cond_mask change_page_attr_set_clr",
            "change_page_attr_set_clr",
        ),
        (
            "__schedule schedule_preempt_disabled __mutex_lock.constprop.0 rtnl_lock devinet_ioctl",
            "__schedule schedule_preempt_disabled __mutex_lock.constprop.0 rtnl_lock devinet_ioctl",
            "devinet_ioctl",
        ),
        (
            "__schedule schedule schedule_timeout wait_for_completion __wait_rcu_gp synchronize_rcu packet_release",
            "__schedule schedule schedule_timeout wait_for_completion __wait_rcu_gp synchronize_rcu packet_release",
            "packet_release",
        ),
        ("hyplab_wait kthread", "hyplab_wait kthread", "hyplab_wait"),
        ("dump_stack panic", "", ""),
        ("", "", ""),
    ],
)
def test_a_report_is_known_by_the_first_frame_that_is_its_own(stack, rest, known_by):
    found = below(stack)
    assert found == rest.split()
    assert anchor(found) == known_by


def test_interrupts_that_dumped_nothing_are_part_of_what_went_on():
    assert below("handle_it __do_softirq irq_exit asm_sysvec_apic_timer_interrupt worker") == [
        "handle_it",
        "__do_softirq",
        "irq_exit",
        "worker",
    ]
