/*
 * What all programs have in common: the ring, the counters beside it, and the beginning of every record.
 *
 * The kernel keeps no trace of a reserve that failed, so each program counts its own, on each CPU and by reason:
 * attempts = records in the ring + all that failed. Source: Documentation/bpf/ringbuf.rst.
 */
#ifndef HYPOCENTER_RECORD_H
#define HYPOCENTER_RECORD_H

#include "kernel.h"

/* Of one CPU, since the program was loaded. The agent reads it by the names of its members. */
struct counts {
	__u64 attempts;  /* records that were to be written */
	__u64 ring_full; /* of those, not written: no room */
	__u64 ring_busy; /* of those, not written, and a look right behind found room: the ring's lock, or a reader just then */
	__u64 untracked; /* what could not be followed: for want of memory, and may have become a record; waits that were sleep */
};

/* Set by the agent before the load. */
const volatile __u32 ring_bytes = 0;
const volatile __u32 wake_bytes = 0;
const volatile bool records = true; /* false: what is measured is counted, and no record is written */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

/*
 * What a program counts beside its records, on each CPU: it defines struct measures, then says MEASURES. Members of type
 * __u64 are counts, members of type __u64[SLOTS] histograms: slot 0 has zeros, slot n what lies in [2^(n-1), 2^n). The
 * agent reads all of them by name.
 */
#define SLOTS 64
#define MEASURES                                                                                                       \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct measures);                                                                        \
	} measures SEC(".maps");                                                                                       \
                                                                                                                       \
	static __always_inline struct measures *own_measures(void)                                                     \
	{                                                                                                              \
		__u32 zero = 0;                                                                                        \
                                                                                                                       \
		return bpf_map_lookup_elem(&measures, &zero);                                                          \
	}

static __always_inline __u32 slot_of(__u64 value)
{
	__u32 slot = value != 0;

	/* By halves: there is no instruction for it. */
	for (__u32 bits = 32; bits; bits >>= 1) {
		if (value >> bits) {
			value >>= bits;
			slot += bits;
		}
	}
	return slot < SLOTS ? slot : SLOTS - 1;
}

/*
 * The first members of every record. cpu_seq is how many records this CPU had attempted before this one: a jump
 * within one CPU's records is as many that failed.
 */
#define RECORD_HEAD(kind)                                                                                              \
	__u64 ts_ns; /* CLOCK_MONOTONIC */                                                                             \
	__u32 cpu;                                                                                                     \
	kind;                                                                                                          \
	__u64 cpu_seq

/* Names the struct of a record in the object's BTF, which lists only what something uses. */
#define RECORD_TYPE(name) const struct name *const name##_record = 0

static __always_inline struct counts *own_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

/* For counters of this CPU that a run may change while another one of this CPU is about to. */
#define COUNT_UP(counter) __sync_fetch_and_add(&(counter), 1)

/* Counts one in a member of struct measures. */
#define MEASURE_ONE(name)                                                                                              \
	do {                                                                                                           \
		struct measures *own = own_measures();                                                                 \
		if (own)                                                                                               \
			COUNT_UP(own->name);                                                                           \
	} while (0)

/*
 * Returns room for a record, or NULL, which is counted unless no records are wanted. `interruptible`: others of the same
 * object may interrupt this one on its CPU, as handlers of interrupts do, or what the agent runs itself. Then too nothing
 * is counted wrong; of two that meet, the one with the higher cpu_seq may lie first in the ring.
 */
static __always_inline void *reserve_as(__u64 bytes, __u64 *cpu_seq, const bool interruptible)
{
	struct counts *own = own_counts();
	void *record;
	__u64 *refused;

	if (!records || !own)
		return NULL;
	*cpu_seq = interruptible ? COUNT_UP(own->attempts) : own->attempts++;
	record = bpf_ringbuf_reserve(&ring, bytes, 0);
	if (!record) {
		if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) + bytes + BPF_RINGBUF_HDR_SZ > ring_bytes)
			refused = &own->ring_full;
		else
			refused = &own->ring_busy;
		if (interruptible)
			COUNT_UP(*refused);
		else
			(*refused)++;
	}
	return record;
}

static __always_inline void *reserve(__u64 bytes, __u64 *cpu_seq)
{
	return reserve_as(bytes, cpu_seq, false);
}

static __always_inline void *reserve_interruptible(__u64 bytes, __u64 *cpu_seq)
{
	return reserve_as(bytes, cpu_seq, true);
}

/*
 * Commits a record. The reader is woken when the ring becomes a quarter full and else comes by itself: a wake-up for
 * each record would cost more than the record, and be an event itself.
 */
static __always_inline void commit(void *record, __u64 bytes)
{
	__u64 waiting_bytes = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	bool crosses = waiting_bytes >= wake_bytes && waiting_bytes < wake_bytes + bytes + BPF_RINGBUF_HDR_SZ;

	bpf_ringbuf_submit(record, crosses ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

#endif
