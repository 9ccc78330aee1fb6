/*
 * The few kernel types that the programs look into, with no more members than they read.
 *
 * The loader finds each member's place in the BTF of the running kernel (CO-RE), so order and size do not matter here,
 * and the objects do not depend on the kernel of the machine that built them. A name behind three underscores tells
 * variants of one type apart; the loader does not see it. Source: include/linux/sched.h.
 */
#ifndef HYPOCENTER_KERNEL_H
#define HYPOCENTER_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define TASK_COMM_LEN 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct {
	int pid;
	int tgid;
	char comm[TASK_COMM_LEN];
	unsigned int __state;
};

/* Until Linux 5.14 (2f064a59a11f). */
struct task_struct___state {
	long state;
};

#pragma clang attribute pop

#endif
