/*
 * sched-delay: a task was runnable for longer than a threshold before it got a CPU.
 *
 * A task waits from its wake-up, or from the moment it was put off its CPU while it could have run, until a CPU
 * switches to it. The scheduler measures that for itself (waits.h), so only the switch is looked at. Of what a switch
 * costs, the hook is more than this program, so another one that wants it too can follow this one there.
 */
#include "record.h"
#include "waits.h"

const volatile __u64 threshold_ns = 10 * 1000 * 1000;

enum sched_delay_cause {
	SCHED_DELAY_WOKEN = WAIT_WOKEN, /* also one who would sleep, and did not for a signal */
	SCHED_DELAY_PREEMPTED = WAIT_PREEMPTED,
	SCHED_DELAY_UNKNOWN = WAIT_UNKNOWN, /* the first of a task that was there before, or cannot be followed: perhaps not all */
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

/*
 * Goes with its task, so there are at most as many as tasks. It is made where a task is made or looked at, never at the
 * switch: until Linux 6.4 (08a7ce384e33) that takes memory from the kernel's allocator, which may wake kswapd, and to
 * wake somebody with the run queue locked is to wait for oneself for ever.
 */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct arrival);
} arrivals SEC(".maps");

static __always_inline int follow(struct task_struct *task)
{
	struct arrival *last = bpf_task_storage_get(&arrivals, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct counts *own;

	/* One that was there before, is in a run queue and not to run may sleep there, and have been moved. */
	if (last && !last->pcount && task->sched_info.last_queued && task->__state)
		last->asleep = 1;
	else if (!last && (own = own_counts()))
		COUNT_UP(own->untracked);
	return 0;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(on_new_task, struct task_struct *task)
{
	return follow(task);
}

/* The agent runs it once a second, over all tasks: those that were there before. */
SEC("iter/task")
int look(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task; /* NULL behind the last */

	return task ? follow(task) : 0;
}

static __always_inline void report(struct task_struct *prev, struct task_struct *next, enum wait_cause cause,
				   __u64 wait_ns)
{
	__u64 cpu_seq;
	struct sched_delay *record = reserve(sizeof(*record), &cpu_seq);

	if (!record)
		return;
	record->ts_ns = bpf_ktime_get_ns();
	record->cpu = bpf_get_smp_processor_id();
	record->cause = (enum sched_delay_cause)cause;
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

/* What runs behind it with the same arguments; empty: nothing does. A jump to a constant place is patched into the code. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} follower SEC(".maps");

static __always_inline void switched(struct task_struct *prev, struct task_struct *next)
{
	enum wait_cause cause;
	struct arrival *last, unseen = {};
	struct measures *own;
	struct counts *lost;
	__u64 wait_ns;

	/* The idle task waits for nothing. */
	if (!next->pid || !next->sched_info.last_queued)
		return;
	last = bpf_task_storage_get(&arrivals, next, 0, 0);
	wait_ns = arrive(next, last ? last : &unseen, &cause);
	if (cause == WAIT_ASLEEP) {
		if ((lost = own_counts()))
			COUNT_UP(lost->untracked);
		return;
	}
	if ((own = own_measures()))
		own->wait_ns[slot_of(wait_ns)]++;
	if (wait_ns >= threshold_ns)
		report(prev, next, cause, wait_ns);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	switched(prev, next);
	bpf_tail_call_static(ctx, &follower, 0);
	return 0;
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_move, struct task_struct *task)
{
	moved(task, bpf_task_storage_get(&arrivals, task, 0, 0));
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
