/*
 * How long a task waited for a CPU, at the moment when it gets one: from what the scheduler keeps of each task.
 *
 * sched_switch comes before the scheduler books the switch: the next task's last_queued is there still, the clock of
 * the run queue is the one that will be booked with, and run_delay lacks this wait unless the task was moved to another
 * CPU meanwhile, which books what it waited before. So what run_delay grows by from one arrival to the next is
 * the wait, to the ns what /proc/PID/schedstat will say, and no clock is read. Source: kernel/sched/stats.h
 * (sched_info_arrive, sched_info_dequeue, sched_info_switch), kernel/sched/core.c (__schedule, context_switch).
 */
#ifndef HYPOCENTER_WAITS_H
#define HYPOCENTER_WAITS_H

#include "kernel.h"

/* What a task's members will be once its last arrival that was seen is booked. */
struct arrival {
	__u64 run_delay_ns;
	__u64 pcount;
	__u64 nivcsw;
};

enum wait_cause {
	WAIT_WOKEN,
	WAIT_PREEMPTED, /* put off its CPU, though it could run */
	WAIT_UNKNOWN, /* its arrival before was not seen, so that it may have waited on another CPU already */
};

/* ns; of the CPU that `task` is given or leaves, as the scheduler read it for the switch that is under way. */
static __always_inline __u64 queue_clock_ns(struct task_struct *task)
{
	return task->se.cfs_rq->rq->clock;
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
	last->run_delay_ns = booked_ns + here_ns;
	last->pcount = pcount + 1;
	last->nivcsw = next->nivcsw;
	return wait_ns;
}

#endif
