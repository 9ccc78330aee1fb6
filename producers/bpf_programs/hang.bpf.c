/*
 * hang: the kernel itself says that something hangs, or that hardware or memory failed.
 *
 * Every part attaches where the kernel has its tracepoint, and is left out elsewhere. Source: kernel/hung_task.c,
 * kernel/rcu/tree_stall.h, mm/oom_kill.c, mm/memory-failure.c, arch/x86/kernel/nmi.c, include/trace/events/error_report.h,
 * mce.h, include/ras/ras_event.h.
 */
#include "record.h"

/* Handlers of non-maskable interrupts: what took less is no record. */
const volatile __u64 threshold_ns = 1000 * 1000;

enum hang_kind {
	HANG_HUNG_TASK, /* did not run for kernel.hung_task_timeout_secs, and cannot be woken by a signal */
	HANG_RCU_STALL, /* a grace period does not end */
	HANG_OOM_VICTIM, /* is killed, because there is no memory */
	HANG_ERROR_REPORT, /* KFENCE, KASAN or a warning: the words are in the kernel log */
	HANG_MACHINE_CHECK, /* x86 */
	HANG_MEMORY_CONTROLLER, /* EDAC */
	HANG_ARM_PROCESSOR, /* the firmware tells */
	HANG_FIRMWARE, /* the firmware tells, of hardware that the kernel does not know */
	HANG_FIRMWARE_MEMORY,
	HANG_PCIE,
	HANG_MEMORY_FAILURE, /* a page is taken out of use */
	HANG_NMI_HANDLER, /* took longer than the threshold */
};

/* What a number or text is of which kind: TABLES.md. What a kind does not have is 0 or empty. */
struct hang {
	RECORD_HEAD(enum hang_kind kind);
	__u64 address;
	__u64 status;
	__u64 misc;
	__u64 duration_ns;
	__u32 pid; /* of whom it is told; where it is told of nobody, who ran on this CPU */
	__u32 tgid;
	__u32 unit;
	__u32 severity;
	__u32 count;
	__u32 error_cpu;
	char comm[TASK_COMM_LEN];
	char text[64];
	char detail[64];
};
RECORD_TYPE(hang);

struct measures {
	__u64 hung_tasks;
	__u64 rcu_stalls;
	__u64 oom_victims;
	__u64 error_reports;
	__u64 machine_checks;
	__u64 memory_controller_errors;
	__u64 arm_processor_errors;
	__u64 firmware_errors;
	__u64 firmware_memory_errors;
	__u64 pcie_errors;
	__u64 memory_failures;
	__u64 nmi_handler_ns[SLOTS]; /* of every handler, also the short ones */
};
MEASURES

/*
 * Returns a record of what happens now, all else in it 0. Whether there is one must be looked at right behind the call:
 * else the compiler looks twice, and the verifier of Linux 6.1 does not see that it is the same question.
 */
static __always_inline struct hang *begin(enum hang_kind kind)
{
	__u64 cpu_seq, thread = bpf_get_current_pid_tgid();
	struct hang *record = reserve_interruptible(sizeof(*record), &cpu_seq);

	if (!record)
		return NULL;
	__builtin_memset(record, 0, sizeof(*record));
	record->ts_ns = bpf_ktime_get_ns();
	record->cpu = bpf_get_smp_processor_id();
	record->kind = kind;
	record->cpu_seq = cpu_seq;
	record->pid = thread;
	record->tgid = thread >> 32;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	return record;
}

#define SAY(member, from) bpf_probe_read_kernel_str(record->member, sizeof(record->member), from)

static __always_inline void tell_of(struct hang *record, struct task_struct *task)
{
	record->pid = task->pid;
	record->tgid = task->tgid;
	bpf_core_read(&record->comm, sizeof(record->comm), &task->comm);
}

SEC("?tp_btf/sched_process_hang")
int BPF_PROG(on_hung_task, struct task_struct *task)
{
	struct hang *record;

	MEASURE_ONE(hung_tasks);
	if ((record = begin(HANG_HUNG_TASK))) {
		tell_of(record, task);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/rcu_stall_warning")
int BPF_PROG(on_rcu_stall, const char *name, const char *message)
{
	struct hang *record;

	MEASURE_ONE(rcu_stalls);
	if ((record = begin(HANG_RCU_STALL))) {
		SAY(text, name);
		SAY(detail, message);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/mark_victim")
int BPF_PROG(on_oom_victim__2, struct task_struct *task, __u32 uid)
{
	struct hang *record;

	MEASURE_ONE(oom_victims);
	if ((record = begin(HANG_OOM_VICTIM))) {
		tell_of(record, task);
		commit(record, sizeof(*record));
	}
	return 0;
}

/* Until Linux 6.8 (72ba14deb40a) it says no more than the number. */
SEC("?tp_btf/mark_victim")
int BPF_PROG(on_oom_victim__1, int pid)
{
	struct hang *record;

	MEASURE_ONE(oom_victims);
	if ((record = begin(HANG_OOM_VICTIM))) {
		record->pid = pid;
		record->tgid = 0;
		__builtin_memset(record->comm, 0, sizeof(record->comm));
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/error_report_end")
int BPF_PROG(on_error_report, int detector, __u64 id)
{
	struct hang *record;

	MEASURE_ONE(error_reports);
	if ((record = begin(HANG_ERROR_REPORT))) {
		record->address = id;
		record->unit = detector;
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/mce_record")
int BPF_PROG(on_machine_check, struct mce *mce)
{
	struct hang *record;

	MEASURE_ONE(machine_checks);
	if ((record = begin(HANG_MACHINE_CHECK))) {
		record->address = BPF_CORE_READ(mce, addr);
		record->status = BPF_CORE_READ(mce, status);
		record->misc = BPF_CORE_READ(mce, misc);
		record->unit = BPF_CORE_READ(mce, bank);
		record->error_cpu = BPF_CORE_READ(mce, extcpu);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/mc_event")
int BPF_PROG(on_memory_controller, __u32 severity, const char *message, const char *label, int count, __u8 controller,
	     __s8 top_layer, __s8 middle_layer, __s8 low_layer, __u64 address, __u8 grain_bits, __u64 syndrome)
{
	struct hang *record;

	MEASURE_ONE(memory_controller_errors);
	if ((record = begin(HANG_MEMORY_CONTROLLER))) {
		record->address = address;
		record->misc = syndrome;
		record->unit = controller;
		record->severity = severity;
		record->count = count;
		SAY(text, message);
		SAY(detail, label);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/arm_event")
int BPF_PROG(on_arm_processor, struct cper_sec_proc_arm *error)
{
	struct hang *record;

	MEASURE_ONE(arm_processor_errors);
	if ((record = begin(HANG_ARM_PROCESSOR))) {
		record->address = BPF_CORE_READ(error, mpidr);
		record->status = BPF_CORE_READ(error, running_state);
		record->misc = BPF_CORE_READ(error, midr);
		record->unit = BPF_CORE_READ(error, affinity_level);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/non_standard_event")
int BPF_PROG(on_firmware, const void *section, const void *unit, const char *unit_text, __u8 severity)
{
	struct hang *record;

	MEASURE_ONE(firmware_errors);
	if ((record = begin(HANG_FIRMWARE))) {
		record->severity = severity;
		SAY(text, unit_text);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/extlog_mem_event")
int BPF_PROG(on_firmware_memory, struct cper_sec_mem_err *error, __u32 number, const void *unit, const char *unit_text,
	     __u8 severity)
{
	struct hang *record;

	MEASURE_ONE(firmware_memory_errors);
	if ((record = begin(HANG_FIRMWARE_MEMORY))) {
		record->address = BPF_CORE_READ(error, physical_addr);
		record->status = BPF_CORE_READ(error, error_status);
		record->severity = severity;
		SAY(text, unit_text);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/aer_event")
int BPF_PROG(on_pcie, const char *device, __u32 status, __u8 severity)
{
	struct hang *record;

	MEASURE_ONE(pcie_errors);
	if ((record = begin(HANG_PCIE))) {
		record->status = status;
		record->severity = severity;
		SAY(text, device);
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/memory_failure_event")
int BPF_PROG(on_memory_failure, __u64 page_number, int type, int result)
{
	struct hang *record;

	MEASURE_ONE(memory_failures);
	if ((record = begin(HANG_MEMORY_FAILURE))) {
		record->address = page_number;
		record->unit = type;
		record->status = (__u32)result;
		commit(record, sizeof(*record));
	}
	return 0;
}

SEC("?tp_btf/nmi_handler")
int BPF_PROG(on_nmi_handler, void *handler, __s64 duration_ns, int handled)
{
	__u64 took_ns = duration_ns > 0 ? duration_ns : 0;
	struct measures *own = own_measures();
	struct hang *record;

	if (own)
		COUNT_UP(own->nmi_handler_ns[slot_of(took_ns)]);
	if (took_ns >= threshold_ns && (record = begin(HANG_NMI_HANDLER))) {
		record->address = (__u64)handler;
		record->duration_ns = took_ns;
		record->count = handled;
		commit(record, sizeof(*record));
	}
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
