/*
 * Which threads `vcpu` follows: by their names, or by numbers and a cgroup that are given.
 *
 * Source: the names are those of QEMU (accel/kvm/kvm-accel-ops.c, accel/tcg/), cloud-hypervisor, firecracker and crosvm.
 */
#ifndef HYPOCENTER_VCPU_THREADS_H
#define HYPOCENTER_VCPU_THREADS_H

#include "kernel.h"

#define PIDS_MAX 64
#define DEPTH_MAX 16 /* of a cgroup, from the one that is followed on */

/* Set by the agent before the load. */
const volatile bool by_name = true;
const volatile __u64 cgroup_id = 0; /* 0: none */
const volatile __u32 pids[PIDS_MAX] = {}; /* of processes or threads, up to the first 0 */

#define NONE (-1)

/* Returns the number in `comm` from byte `at` on, NONE where no digit stands there. */
static __always_inline __s32 number_at(const char *comm, const int at)
{
	__s32 number = NONE;

	for (int i = at; i < at + 5 && i < TASK_COMM_LEN; i++) {
		if (comm[i] < '0' || comm[i] > '9')
			break;
		number = (number == NONE ? 0 : number * 10) + (comm[i] - '0');
	}
	return number;
}

static __always_inline bool begins(const char *comm, const char *with, const int length)
{
	for (int i = 0; i < length; i++)
		if (comm[i] != with[i])
			return false;
	return true;
}

#define BEHIND(comm, name) (begins(comm, name, sizeof(name) - 1) ? number_at(comm, sizeof(name) - 1) : NONE)

static __always_inline __s32 vcpu_of(struct task_struct *task)
{
	char comm[TASK_COMM_LEN] = {};
	__s32 found;

	bpf_core_read(&comm, sizeof(comm), &task->comm);
	found = BEHIND(comm, "CPU "); /* CPU 0/KVM, CPU 0/TCG */
	if (found == NONE)
		found = BEHIND(comm, "vcpu");
	if (found == NONE)
		found = BEHIND(comm, "fc_vcpu ");
	if (found == NONE)
		found = BEHIND(comm, "crosvm_vcpu");
	return found;
}

static __always_inline bool is_wanted(struct task_struct *task, __s32 vcpu)
{
	struct cgroup *at;

	if (by_name && vcpu != NONE)
		return true;
	for (int i = 0; i < PIDS_MAX && pids[i]; i++)
		if (task->pid == pids[i] || task->tgid == pids[i])
			return true;
	if (!cgroup_id)
		return false;
	at = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	for (int depth = 0; at && depth < DEPTH_MAX; depth++) {
		if (BPF_CORE_READ(at, kn, id) == cgroup_id)
			return true;
		at = BPF_CORE_READ(at, self.parent, cgroup);
	}
	return false;
}

#endif
