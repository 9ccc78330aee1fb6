/*
 * The few kernel types that the programs look into, with no more members than they read.
 *
 * The loader finds each member's place in the BTF of the running kernel (CO-RE), so order and size do not matter here,
 * and the objects do not depend on the kernel of the machine that built them. A name behind three underscores tells
 * variants of one type apart; the loader does not see it. Source: include/linux/sched.h, blkdev.h, blk-mq.h, interrupt.h, cper.h,
 * arch/x86/include/asm/mce.h.
 */
#ifndef HYPOCENTER_KERNEL_H
#define HYPOCENTER_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define TASK_COMM_LEN 16

struct bpf_map;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Where CONFIG_SCHED_INFO keeps it; ns of the run queue's clock. */
struct sched_info {
	unsigned long pcount; /* times it was given a CPU */
	unsigned long long run_delay; /* all that it waited */
	unsigned long long last_arrival;
	unsigned long long last_queued; /* 0: it does not wait */
};

struct task_struct;

/* Of one CPU. */
struct rq {
	__u64 clock;
	struct task_struct *curr;
};

struct cfs_rq {
	struct rq *rq;
	int throttle_count; /* 0: neither its group nor one above it is throttled */
};

struct sched_entity {
	__u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq; /* of the CPU where the task runs, waits or last ran, also while another class schedules it */
	unsigned char sched_delayed; /* it sleeps, and stays in the run queue until its turn; since Linux 6.12 */
};

struct thread_info {
	unsigned int cpu;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* of version 2 */
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	int on_cpu;
	int pid;
	int tgid;
	unsigned int in_iowait : 1;
	unsigned int frozen : 1; /* by version 2 of cgroups */
	struct css_set *cgroups;
	char comm[TASK_COMM_LEN];
	unsigned long nivcsw; /* times it was put off its CPU while it could run */
	struct sched_info sched_info;
	struct sched_entity se;
};

struct bpf_iter_meta {
	__u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task; /* NULL behind the last */
};

struct gendisk {
	int major;
	int first_minor;
	char disk_name[32];
};

struct request_queue {
	struct gendisk *disk;
};

struct kernel_counter {
	int counter;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct kernel_counter ref;
};

/* Until Linux 5.17 (f3fa33acca9f). */
struct request___disk {
	struct gendisk *rq_disk;
};

struct irqaction {
	const char *name;
};

/* Since Linux 6.13 the first member of what the machine check's tracepoint gives: its members stand where they stood. */
struct mce {
	__u64 status;
	__u64 misc;
	__u64 addr;
	__u8 bank;
	__u32 extcpu;
};

struct cper_sec_proc_arm {
	__u8 affinity_level;
	__u64 mpidr;
	__u64 midr;
	__u32 running_state;
};

struct cper_sec_mem_err {
	__u64 error_status;
	__u64 physical_addr;
};

#pragma clang attribute pop

#endif
