/*
 * vcpu: what the threads that run the CPUs of virtual machines do, and for how long: run, wait for a CPU, sleep, stand.
 *
 * A switch ends one stay and begins another. A sleeper's wake-up is not looked at: when it gets a CPU, the scheduler
 * knows how long it had waited for that (waits.h), and the time before was sleep. The agent walks all threads each look_ns:
 * that finds new ones, and tells of stays that go on. Source: kernel/sched/core.c (__schedule), include/linux/sched.h,
 * kernel/bpf/task_iter.c.
 */
#include "record.h"
#include "vcpu_threads.h"
#include "waits.h"

const volatile __u64 threshold_ns = 10 * 1000 * 1000;
const volatile __u64 look_ns = 1000 * 1000 * 1000;
const volatile __u32 threads_max = 4096;

enum vcpu_state {
	VCPU_RUNNING,
	VCPU_WAITING, /* could run, and another ran */
	VCPU_THROTTLED, /* could run, and its cgroup had used up its time */
	VCPU_SLEEPING,
	VCPU_UNINTERRUPTIBLE,
	VCPU_STOPPED,
	VCPU_TRACED,
	VCPU_FROZEN,
};

struct vcpu {
	RECORD_HEAD(enum vcpu_state state); /* the time is that of its end; of one that goes on, when it was looked at */
	__u64 duration_ns;
	__u64 cpu_ns; /* running and ended: what the scheduler counts of it, without interrupts and stolen time; 0: not known */
	__u32 pid; /* the thread, as the initial namespace numbers it */
	__u32 tgid;
	__s32 vcpu; /* by its name; -1: that has none */
	__u32 on_cpu; /* where it runs, waits, or last ran */
	__u32 prev_pid; /* waiting: who ran there until it could, or runs there; 0 is the idle task */
	__u32 prev_tgid;
	bool open; /* it goes on */
	bool io_wait; /* sleeps for a disk or the like, as the kernel counts iowait */
	char task_state[2]; /* the letter that ps shows */
	char comm[TASK_COMM_LEN];
	char prev_comm[TASK_COMM_LEN];
};
RECORD_TYPE(vcpu);

struct measures {
	__u64 running_ns[SLOTS]; /* of every stay that ended, also the short ones */
	__u64 waiting_ns[SLOTS];
	__u64 sleeping_ns[SLOTS]; /* and what stands: stopped, traced or frozen */
	__u64 missed; /* stays of which one end was not seen */
};
MEASURES

/* Of include/linux/sched.h. */
#define TASK_INTERRUPTIBLE 0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED 0x4
#define TASK_TRACED 0x8
#define TASK_DEAD (0x10 | 0x20 | 0x80)
#define TASK_NOLOAD 0x400
#define TASK_FROZEN 0x8000 /* by version 1 of cgroups, or a machine that goes to sleep; since Linux 6.1 */

/*
 * A stay in one word, so that who looks can change it only if it is still the same: running, how it sleeps, how it waits
 * (0: VCPU_RUNNING, which is neither), and a number.
 */
#define STAY(number, running, sleeps, waits) ((__u64)(number) << 24 | (running) << 16 | (sleeps) << 8 | (waits))
#define NUMBER(stay) ((stay) >> 24)
#define IS_RUNNING(stay) ((stay) >> 16 & 1)
#define SLEEPS(stay) ((stay) >> 8 & 0xff)
#define WAITS(stay) ((stay) & 0xff)

struct thread {
	struct arrival last;
	__u64 stay;
	__u64 since_ns; /* CLOCK_MONOTONIC */
	__u64 ahead_ns; /* CLOCK_MONOTONIC before the clock of the run queue, when it left its CPU */
	__u64 exec_ns; /* the scheduler's sum when it got its CPU; ~0: not seen */
	__u32 io_wait;
	__s32 vcpu;
	__u64 letter;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* Threads met or taken, and those for which there was no place; _before: by the walk before. Only one runs at a time. */
static __u32 followed, followed_before, taken, beyond, beyond_before;

/*
 * A bit for each number of a thread, as far as they go: is it not set, that thread is not followed, and none need be
 * looked up. Only walks set them; one that is over keeps its bit, which costs whoever has it next a look in vain.
 */
#define MARKS 65536
static __u64 marks[MARKS / 64];
#define MARK_OF(task) marks[(__u32)(task)->pid % MARKS / 64]
#define BIT_OF(task) (1ULL << ((task)->pid & 63))

static __always_inline struct thread *find(struct task_struct *task)
{
	return MARK_OF(task) & BIT_OF(task) ? bpf_task_storage_get(&threads, task, 0, 0) : NULL;
}

/* What a record says beside the task. */
struct stay {
	enum vcpu_state state;
	__u64 end_ns;
	__u64 duration_ns;
	__u64 cpu_ns;
	__u64 letter;
	__s32 vcpu;
	bool open;
	bool io_wait;
};

static __always_inline void write(struct task_struct *task, struct task_struct *prev, const struct stay *stay)
{
	__u64 cpu_seq;
	struct vcpu *record = reserve_interruptible(sizeof(*record), &cpu_seq);

	if (!record)
		return;
	record->ts_ns = stay->end_ns;
	record->cpu = bpf_get_smp_processor_id();
	record->state = stay->state;
	record->cpu_seq = cpu_seq;
	record->duration_ns = stay->duration_ns;
	record->cpu_ns = stay->cpu_ns;
	record->pid = task->pid;
	record->tgid = task->tgid;
	record->vcpu = stay->vcpu;
	record->on_cpu = task->thread_info.cpu;
	record->prev_pid = 0;
	record->prev_tgid = 0;
	record->open = stay->open;
	record->io_wait = stay->io_wait;
	record->task_state[0] = stay->letter;
	record->task_state[1] = 0;
	__builtin_memset(record->prev_comm, 0, sizeof(record->prev_comm));
	bpf_core_read(&record->comm, sizeof(record->comm), &task->comm);
	if (prev) {
		bpf_core_read(&record->prev_pid, sizeof(record->prev_pid), &prev->pid);
		bpf_core_read(&record->prev_tgid, sizeof(record->prev_tgid), &prev->tgid);
		bpf_core_read(&record->prev_comm, sizeof(record->prev_comm), &prev->comm);
	}
	commit(record, sizeof(*record));
}

/* A stay that ended. */
static __always_inline void finish(struct task_struct *task, struct task_struct *prev, const struct stay *stay)
{
	struct measures *own = own_measures();
	__u64 *slots;

	if (own) {
		slots = stay->state == VCPU_RUNNING	 ? own->running_ns :
			stay->state <= VCPU_THROTTLED ? own->waiting_ns :
							   own->sleeping_ns;
		COUNT_UP(slots[slot_of(stay->duration_ns)]);
	}
	if (stay->duration_ns >= threshold_ns)
		write(task, prev, stay);
}

static __always_inline bool is_throttled(struct task_struct *task)
{
	int count = 0;

	if (bpf_core_field_exists(task->se.cfs_rq->throttle_count)) /* CONFIG_CFS_BANDWIDTH */
		count = task->se.cfs_rq->throttle_count;
	return count > 0;
}

static __always_inline __u64 waits_how(struct task_struct *task)
{
	return is_throttled(task) ? VCPU_THROTTLED : VCPU_WAITING;
}

static __always_inline __u64 sleeps_how(struct task_struct *task, __u32 state)
{
	if (state & TASK_STOPPED)
		return VCPU_STOPPED;
	if (state & TASK_TRACED)
		return VCPU_TRACED;
	/* Version 2 takes whoever is stopped or traced for frozen as well. */
	if (state & TASK_FROZEN || BPF_CORE_READ_BITFIELD_PROBED(task, frozen))
		return VCPU_FROZEN;
	return state & TASK_UNINTERRUPTIBLE ? VCPU_UNINTERRUPTIBLE : VCPU_SLEEPING;
}

static __always_inline __u64 letter_of(__u32 state)
{
	if (state & TASK_DEAD)
		return 'X';
	if (state & TASK_STOPPED)
		return 'T';
	if (state & TASK_TRACED)
		return 't';
	if (state & (TASK_UNINTERRUPTIBLE | TASK_FROZEN))
		return state & TASK_NOLOAD ? 'I' : 'D';
	return 'S';
}

/* `task` leaves its CPU. When it came, its scheduler knows, also where that switch was not seen. */
static __always_inline void leave(struct task_struct *task, struct thread *its, bool can_run, __u32 state)
{
	__u64 now_ns = bpf_ktime_get_ns(), clock_ns = queue_clock_ns(task), stay = its->stay;
	bool seen = IS_RUNNING(stay) && its->last.pcount == task->sched_info.pcount;
	struct stay ended = {
		.state = VCPU_RUNNING,
		.end_ns = now_ns,
		.duration_ns = clock_ns - task->sched_info.last_arrival,
		.cpu_ns = seen && its->exec_ns != ~0ULL ? task->se.sum_exec_runtime - its->exec_ns : 0,
		.letter = 'R',
		.vcpu = its->vcpu,
	};

	if (!seen) {
		MEASURE_ONE(missed);
		if (!IS_RUNNING(stay) && task->sched_info.pcount == its->last.pcount + 1 && !its->last.asleep) {
			/* It came unseen, and what it waited for that is booked. */
			struct stay waited = {
				.state = WAITS(stay),
				.end_ns = now_ns - ended.duration_ns,
				.duration_ns = task->sched_info.run_delay - its->last.run_delay_ns,
				.letter = 'R',
				.vcpu = its->vcpu,
			};
			finish(task, NULL, &waited);
		}
		its->last.run_delay_ns = task->sched_info.run_delay;
		its->last.pcount = task->sched_info.pcount;
		its->last.asleep = 0;
	}
	its->since_ns = now_ns;
	its->ahead_ns = now_ns - clock_ns;
	its->io_wait = !can_run && BPF_CORE_READ_BITFIELD_PROBED(task, in_iowait);
	its->letter = can_run ? 'R' : letter_of(state);
	*(volatile __u64 *)&its->stay =
		STAY(NUMBER(stay) + 1, 0, can_run ? 0 : sleeps_how(task, state), can_run ? waits_how(task) : VCPU_WAITING);
	finish(task, NULL, &ended);
}

/* `task` gets the CPU that `prev` had. */
static __always_inline void come(struct task_struct *task, struct thread *its, struct task_struct *prev)
{
	__u64 now_ns = bpf_ktime_get_ns(), off_ns = now_ns - its->since_ns, stay = its->stay, wait_ns;
	struct stay ended = { .vcpu = its->vcpu };
	enum wait_cause cause;

	if (!task->sched_info.last_queued)
		return;
	wait_ns = arrive(task, &its->last, &cause);
	its->since_ns = now_ns;
	its->exec_ns = task->se.sum_exec_runtime;
	*(volatile __u64 *)&its->stay = STAY(NUMBER(stay) + 1, 1, 0, 0);
	if (IS_RUNNING(stay) || cause == WAIT_UNKNOWN || cause == WAIT_ASLEEP) {
		MEASURE_ONE(missed);
		if (cause == WAIT_ASLEEP)
			return;
	} else if (SLEEPS(stay)) {
		ended.state = SLEEPS(stay);
		ended.end_ns = now_ns - wait_ns;
		ended.duration_ns = off_ns > wait_ns ? off_ns - wait_ns : 0;
		ended.letter = its->letter;
		ended.io_wait = its->io_wait;
		finish(task, NULL, &ended);
	}
	ended.state = IS_RUNNING(stay) ? VCPU_WAITING : WAITS(stay);
	ended.end_ns = now_ns;
	ended.duration_ns = wait_ns;
	ended.letter = 'R';
	ended.io_wait = false;
	finish(task, prev, &ended);
}

static __always_inline int switched(bool preempt, struct task_struct *prev, struct task_struct *next, __u32 state)
{
	struct thread *its = find(prev);

	if (its)
		leave(prev, its, preempt || !state, state);
	its = find(next);
	if (its)
		come(next, its, prev);
	return 0;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(on_switch__4, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	return switched(preempt, prev, next, prev_state);
}

/* Until Linux 5.18 (fa2c3254d7cf). */
SEC("?tp_btf/sched_switch")
int BPF_PROG(on_switch__3, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return switched(preempt, prev, next, prev->__state);
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_move, struct task_struct *task)
{
	struct thread *its = find(task);

	moved(task, its ? &its->last : NULL);
	return 0;
}

static __always_inline void follow(struct task_struct *task, __u64 now_ns)
{
	__u32 state = task->__state;
	__s32 vcpu = vcpu_of(task);
	struct thread its = {
		/* In a run queue and not to run, it may sleep there, and have been moved. */
		.last = { task->sched_info.run_delay, task->sched_info.pcount, task->nivcsw, task->sched_info.last_queued && state },
		.since_ns = now_ns,
		.exec_ns = ~0ULL,
		.vcpu = vcpu,
		.letter = state ? letter_of(state) : 'R',
	};
	struct counts *own;

	if (state & TASK_DEAD || !is_wanted(task, vcpu))
		return;
	if (followed_before + taken >= threads_max) {
		beyond++;
		return;
	}
	if (task->on_cpu)
		its.stay = STAY(0, 1, 0, 0);
	else if (task->sched_info.last_queued || !state)
		its.stay = STAY(0, 0, 0, waits_how(task));
	else
		its.stay = STAY(0, 0, sleeps_how(task, state), VCPU_WAITING);
	MARK_OF(task) |= BIT_OF(task);
	if (bpf_task_storage_get(&threads, task, &its, BPF_LOCAL_STORAGE_GET_F_CREATE))
		taken++;
	else if ((own = own_counts()))
		COUNT_UP(own->untracked);
}

/* What it does now, and since when; on another CPU that may end while it is looked at, which is then left out. */
static __always_inline void look_at(struct task_struct *task, struct thread *its, __u64 now_ns)
{
	__u64 stay = *(volatile __u64 *)&its->stay, seen = stay, queued_ns = task->sched_info.last_queued;
	__u64 from_ns = its->since_ns, last_ns = its->last.run_delay_ns, delay_ns = task->sched_info.run_delay;
	struct stay goes_on = { .vcpu = its->vcpu, .open = true, .end_ns = now_ns, .letter = 'R' };
	__u32 state = task->__state;
	struct task_struct *curr = NULL;

	if (IS_RUNNING(stay)) {
		goes_on.state = VCPU_RUNNING;
	} else if (queued_ns && !its->last.asleep) {
		goes_on.state = waits_how(task);
		if (SLEEPS(stay))
			from_ns = queued_ns + its->ahead_ns - (delay_ns - last_ns);
		/* Throttled for some of it is throttled. */
		if (goes_on.state == VCPU_THROTTLED)
			seen = STAY(NUMBER(stay), 0, SLEEPS(stay), VCPU_THROTTLED);
		curr = BPF_CORE_READ(task, se.cfs_rq, rq, curr);
	} else if (SLEEPS(stay) && state && !(state & TASK_DEAD)) {
		goes_on.state = sleeps_how(task, state);
		goes_on.letter = letter_of(state);
		goes_on.io_wait = its->io_wait;
		seen = STAY(NUMBER(stay), 0, goes_on.state, WAITS(stay));
	} else {
		return; /* just wakes, or ends, or waits since nobody knows when */
	}
	if (__sync_val_compare_and_swap(&its->stay, stay, seen) != stay)
		return;
	goes_on.duration_ns = now_ns - from_ns;
	if ((__s64)goes_on.duration_ns >= (__s64)threshold_ns && (__s64)goes_on.duration_ns >= (__s64)look_ns)
		write(task, curr, &goes_on);
}

/* The agent runs it each look_ns over all threads. */
SEC("iter/task")
int look(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct thread *its;
	struct counts *own;

	if (!task) {
		/* How many are followed, those say that are met. */
		if (beyond > beyond_before && (own = own_counts()))
			__sync_fetch_and_add(&own->untracked, beyond - beyond_before);
		beyond_before = beyond;
		followed_before = followed + taken;
		followed = taken = beyond = 0;
		return 0;
	}
	its = find(task);
	if (its) {
		followed++;
		look_at(task, its, bpf_ktime_get_ns());
	} else {
		follow(task, bpf_ktime_get_ns());
	}
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
