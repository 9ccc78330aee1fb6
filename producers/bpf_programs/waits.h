/*
 * How long a task waited for a CPU, at the moment when it gets one: from what the scheduler keeps of each task.
 *
 * sched_switch comes before the scheduler books the switch: the next task's last_queued is there still, the clock of
 * the run queue is the one that will be booked with, and run_delay lacks this wait unless the task was moved to another
 * CPU meanwhile, which books what it waited before. So what run_delay grows by from one arrival to the next is
 * the wait, to the ns what /proc/PID/schedstat will say, and no clock is read. Source: kernel/sched/stats.h
 * (sched_info_arrive, sched_info_dequeue, sched_info_switch), kernel/sched/core.c (__schedule, context_switch).
 *
 * Since Linux 6.12 (152e11f6df29) one that sleeps may stay in the run queue until its turn. Where it is moved to another
 * CPU meanwhile, the scheduler books as waiting all that it sleeps from then on, so such a wait is none (`moved`).
 */
#ifndef HYPOCENTER_WAITS_H
#define HYPOCENTER_WAITS_H

#include "kernel.h"

/* What a task's members will be once its last arrival that was seen is booked. */
struct arrival {
	__u64 run_delay_ns;
	__u64 pcount;
	__u64 nivcsw;
	__u64 asleep; /* 1: what it is said to wait now is sleep, at least for some of it */
};

enum wait_cause {
	WAIT_WOKEN,
	WAIT_PREEMPTED, /* put off its CPU, though it could run */
	WAIT_UNKNOWN, /* its arrival before was not seen, so that it may have waited on another CPU already */
	WAIT_ASLEEP, /* for some of it or for all it slept, and when it was woken nobody knows */
};

/* ns; of the CPU that `task` is given or leaves, as the scheduler read it for the switch that is under way. */
static __always_inline __u64 queue_clock_ns(struct task_struct *task)
{
	return task->se.cfs_rq->rq->clock;
}

/* `task` is moved to another CPU (sched_migrate_task). */
static __always_inline void moved(struct task_struct *task, struct arrival *last)
{
	if (last && bpf_core_field_exists(task->se.sched_delayed) && task->se.sched_delayed)
		last->asleep = 1;
}

/*
 * Returns what `next` waited, in ns, and notes its arrival in `last`: zeroes, if none was noted before. It must wait
 * (last_queued is not 0).
 */
static __always_inline __u64 arrive(struct task_struct *next, struct arrival *last, enum wait_cause *cause)
{
	__u64 here_ns = queue_clock_ns(next) - next->sched_info.last_queued, pcount = next->sched_info.pcount;
	__u64 booked_ns = next->sched_info.run_delay, wait_ns = here_ns;

	if (pcount == last->pcount) {
		/* Between two arrivals it left its CPU once. A task that is new has none, and all is 0. */
		*cause = pcount && next->nivcsw != last->nivcsw ? WAIT_PREEMPTED : WAIT_WOKEN;
		wait_ns += booked_ns - last->run_delay_ns;
	} else {
		*cause = WAIT_UNKNOWN;
	}
	if (last->asleep)
		*cause = WAIT_ASLEEP;
	last->asleep = 0;
	last->run_delay_ns = booked_ns + here_ns;
	last->pcount = pcount + 1;
	last->nivcsw = next->nivcsw;
	return wait_ns;
}

#endif
