/*
 * sched-delay: a task was runnable for longer than a threshold before it got a CPU.
 *
 * A task waits from its wake-up, or from the moment it was put off its CPU while it could have run, until a CPU
 * switches to it. Source: kernel/sched/core.c (ttwu_do_wakeup, wake_up_new_task, __schedule).
 */
#include "record.h"

const volatile __u64 threshold_ns = 10 * 1000 * 1000;

enum sched_delay_cause {
	SCHED_DELAY_WOKEN,
	SCHED_DELAY_PREEMPTED,
};

struct sched_delay {
	RECORD_HEAD(enum sched_delay_cause cause); /* how the wait began; the time is that of its end */
	__u64 wait_ns;
	__u32 pid; /* who waited: the thread, as the initial namespace numbers it */
	__u32 tgid;
	__u32 prev_pid; /* who ran on this CPU until then; 0 is the idle task */
	__u32 prev_tgid;
	char comm[TASK_COMM_LEN];
	char prev_comm[TASK_COMM_LEN];
};
RECORD_TYPE(sched_delay);

struct measures {
	__u64 wait_ns[SLOTS]; /* of every wait, also the short ones */
};
MEASURES

struct waiting {
	__u64 since_ns; /* 0: it does not wait */
	enum sched_delay_cause cause;
};

/* Goes with its task, so there are at most as many as tasks. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct waiting);
} waiting SEC(".maps");

static __always_inline void waits(struct task_struct *task, __u64 now_ns, enum sched_delay_cause cause)
{
	struct waiting *its = bpf_task_storage_get(&waiting, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct counts *own;

	if (its) {
		its->cause = cause;
		its->since_ns = now_ns;
	} else if ((own = own_counts())) {
		own->untracked++;
	}
}

static __always_inline bool may_run(struct task_struct *task)
{
	struct task_struct___state *older = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state) == 0;
	return BPF_CORE_READ(older, state) == 0;
}

static __always_inline void report(struct task_struct *prev, struct task_struct *next, struct waiting *its,
				   __u64 now_ns, __u64 wait_ns)
{
	__u64 cpu_seq;
	struct sched_delay *record = reserve(sizeof(*record), &cpu_seq);

	if (!record)
		return;
	record->ts_ns = now_ns;
	record->cpu = bpf_get_smp_processor_id();
	record->cause = its->cause;
	record->cpu_seq = cpu_seq;
	record->wait_ns = wait_ns;
	record->pid = next->pid;
	record->tgid = next->tgid;
	record->prev_pid = prev->pid;
	record->prev_tgid = prev->tgid;
	bpf_core_read(&record->comm, sizeof(record->comm), &next->comm);
	bpf_core_read(&record->prev_comm, sizeof(record->prev_comm), &prev->comm);
	commit(record, sizeof(*record));
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task)
{
	waits(task, bpf_ktime_get_ns(), SCHED_DELAY_WOKEN);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *task)
{
	waits(task, bpf_ktime_get_ns(), SCHED_DELAY_WOKEN);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u64 now_ns = bpf_ktime_get_ns();
	struct measures *own;
	struct waiting *its;

	/* The idle task may always run, and waits for nothing. */
	if (prev->pid && (preempt || may_run(prev)))
		waits(prev, now_ns, SCHED_DELAY_PREEMPTED);
	if (!next->pid)
		return 0;
	its = bpf_task_storage_get(&waiting, next, 0, 0);
	if (!its || !its->since_ns)
		return 0;
	if ((own = own_measures()))
		own->wait_ns[slot_of(now_ns - its->since_ns)]++;
	if (now_ns - its->since_ns >= threshold_ns)
		report(prev, next, its, now_ns, now_ns - its->since_ns);
	its->since_ns = 0;
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
