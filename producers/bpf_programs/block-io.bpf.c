/*
 * block-io: a request to a block device took longer than a threshold, or failed, or is open for longer than that.
 *
 * A request is inserted into the queue of its device (not where it goes to the driver at once), issued to the driver,
 * perhaps requeued, also before it was issued, and issued again, and completed, perhaps in pieces; or it is merged into another one and ends with
 * that. Source: block/blk-mq.c (blk_mq_start_request, blk_update_request, __blk_mq_requeue_request), blk-merge.c
 * (attempt_merge), include/trace/events/block.h, include/linux/blk_types.h.
 */
#include <linux/errno.h>

#include "record.h"

#define OPERATION_MASK 0xff /* REQ_OP_BITS */
#define OPEN_MAX 16384
#define NO_SECTOR ~0ULL /* of a flush; trace events show 0 */

const volatile __u64 threshold_ns = 100 * 1000 * 1000;

enum block_io_state {
	BLOCK_IO_DONE,
	BLOCK_IO_QUEUED, /* open, and not with the driver */
	BLOCK_IO_ISSUED, /* open, with the driver */
};

/* enum req_op, as far as its numbers are those of every kernel. */
enum block_io_operation {
	BLOCK_IO_READ = 0,
	BLOCK_IO_WRITE = 1,
	BLOCK_IO_FLUSH = 2,
	BLOCK_IO_DISCARD = 3,
	BLOCK_IO_SECURE_ERASE = 5,
	BLOCK_IO_WRITE_ZEROES = 9,
	BLOCK_IO_DRV_IN = 34,
	BLOCK_IO_DRV_OUT = 35,
};

/* blk_status_t, likewise. */
enum block_io_status {
	BLOCK_IO_OK = 0,
	BLOCK_IO_NOTSUPP = 1,
	BLOCK_IO_TIMEOUT = 2,
	BLOCK_IO_NOSPC = 3,
	BLOCK_IO_TRANSPORT = 4,
	BLOCK_IO_TARGET = 5,
	BLOCK_IO_RESV_CONFLICT = 6,
	BLOCK_IO_MEDIUM = 7,
	BLOCK_IO_PROTECTION = 8,
	BLOCK_IO_RESOURCE = 9,
	BLOCK_IO_IOERR = 10,
	BLOCK_IO_DM_REQUEUE = 11,
	BLOCK_IO_AGAIN = 12,
	BLOCK_IO_DEV_RESOURCE = 13,
};

struct block_io {
	RECORD_HEAD(enum block_io_state state);
	__u64 sector; /* of 512 bytes */
	__u64 queued_ns; /* until it was issued, the last time; if it was not, until ts_ns */
	__u64 service_ns; /* from then until it was completed; if it is open, until ts_ns */
	__u32 size_bytes;
	enum block_io_operation operation;
	enum block_io_status status;
	__u32 requeues;
	__u32 major; /* of the whole device; 0 where the request's queue has none */
	__u32 minor;
	__u32 pid; /* who inserted or issued it first: for what is written behind a program's back, a thread of the kernel */
	__u32 tgid;
	bool sync; /* flags of the request, as blk_types.h has them */
	bool meta;
	bool fua;
	bool preflush;
	bool readahead;
	bool background;
	bool nowait;
	bool idle;
	char disk[32];
	char comm[TASK_COMM_LEN];
};
RECORD_TYPE(block_io);

struct measures {
	__u64 read_ns[SLOTS]; /* of every request that was completed, from its insert, issue or first requeue on */
	__u64 write_ns[SLOTS];
	__u64 flush_ns[SLOTS];
	__u64 discard_ns[SLOTS]; /* and what erases or writes zeroes */
	__u64 other_ns[SLOTS];
	__u64 errors; /* requests that failed */
	__u64 requeues;
	__u64 merged; /* into another request, after the insert */
	__u64 untimed; /* completed, and neither insert nor issue was seen: begun before the program, or untracked */
	__u64 stale; /* taken for open, and their end had not been seen */
};
MEASURES

/* As the running kernel numbers them. */
enum req_flag_bits {
	__REQ_SYNC,
	__REQ_META,
	__REQ_FUA,
	__REQ_PREFLUSH,
	__REQ_RAHEAD,
	__REQ_BACKGROUND,
	__REQ_NOWAIT,
	__REQ_IDLE,
};

struct open_request {
	__u64 since_ns;
	__u64 issued_ns; /* 0: not yet */
	__u64 sector;
	struct request_queue *queue;
	__u32 size_bytes;
	__u32 cmd_flags;
	__u32 status;
	__u32 requeues;
	__u32 pid;
	__u32 tgid;
	__u64 is_back; /* requeued: what comes next of this address is the same request */
	char comm[TASK_COMM_LEN];
};

/*
 * By address. A kernel has as many requests as its devices have tags, and uses their memory again: what comes anew at an
 * address replaces what was there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OPEN_MAX);
	__type(key, __u64);
	__type(value, struct open_request);
} open_requests SEC(".maps");

static __always_inline struct open_request *find(struct request *rq)
{
	__u64 address = (__u64)rq;

	return bpf_map_lookup_elem(&open_requests, &address);
}

static __always_inline void forget(struct request *rq)
{
	__u64 address = (__u64)rq;

	bpf_map_delete_elem(&open_requests, &address);
}

static __always_inline void begin(struct request *rq, __u64 now_ns, __u64 issued_ns)
{
	__u64 address = (__u64)rq, thread = bpf_get_current_pid_tgid();
	struct open_request its = {
		.since_ns = now_ns,
		.issued_ns = issued_ns,
		.sector = rq->__sector,
		.queue = rq->q,
		.size_bytes = rq->__data_len,
		.cmd_flags = rq->cmd_flags,
		.pid = thread,
		.tgid = thread >> 32,
	};
	struct counts *own;

	bpf_get_current_comm(its.comm, sizeof(its.comm));
	if (bpf_map_update_elem(&open_requests, &address, &its, BPF_ANY) && (own = own_counts()))
		COUNT_UP(own->untracked);
}

static __always_inline struct gendisk *disk_of(struct request *rq)
{
	struct request___disk *older = (void *)rq;

	if (bpf_core_field_exists(older->rq_disk))
		return BPF_CORE_READ(older, rq_disk);
	return BPF_CORE_READ(rq, q, disk);
}

#define HAS_FLAG(cmd_flags, name)                                                                                      \
	(bpf_core_enum_value_exists(enum req_flag_bits, name) &&                                                       \
	 (cmd_flags) & 1ULL << bpf_core_enum_value(enum req_flag_bits, name))

static __always_inline void report(struct request *rq, struct open_request *its, enum block_io_state state, __u64 now_ns)
{
	__u64 cpu_seq, issued_ns = state == BLOCK_IO_QUEUED || !its->issued_ns ? now_ns : its->issued_ns;
	struct gendisk *disk = disk_of(rq);
	struct block_io *record = reserve_interruptible(sizeof(*record), &cpu_seq);

	if (!record)
		return;
	record->ts_ns = now_ns;
	record->cpu = bpf_get_smp_processor_id();
	record->state = state;
	record->cpu_seq = cpu_seq;
	record->sector = its->sector == NO_SECTOR ? 0 : its->sector;
	record->queued_ns = issued_ns - its->since_ns;
	record->service_ns = now_ns - issued_ns;
	record->size_bytes = its->size_bytes;
	record->operation = its->cmd_flags & OPERATION_MASK;
	record->status = its->status;
	record->requeues = its->requeues;
	record->major = BPF_CORE_READ(disk, major);
	record->minor = BPF_CORE_READ(disk, first_minor);
	record->pid = its->pid;
	record->tgid = its->tgid;
	record->sync = HAS_FLAG(its->cmd_flags, __REQ_SYNC);
	record->meta = HAS_FLAG(its->cmd_flags, __REQ_META);
	record->fua = HAS_FLAG(its->cmd_flags, __REQ_FUA);
	record->preflush = HAS_FLAG(its->cmd_flags, __REQ_PREFLUSH);
	record->readahead = HAS_FLAG(its->cmd_flags, __REQ_RAHEAD);
	record->background = HAS_FLAG(its->cmd_flags, __REQ_BACKGROUND);
	record->nowait = HAS_FLAG(its->cmd_flags, __REQ_NOWAIT);
	record->idle = HAS_FLAG(its->cmd_flags, __REQ_IDLE);
	bpf_core_read(&record->disk, sizeof(record->disk), &disk->disk_name);
	__builtin_memcpy(record->comm, its->comm, sizeof(record->comm));
	commit(record, sizeof(*record));
}

static __always_inline void measure(__u32 operation, __u64 took_ns)
{
	struct measures *own = own_measures();
	__u32 slot = slot_of(took_ns);

	if (!own)
		return;
	switch (operation) {
	case BLOCK_IO_READ:
		COUNT_UP(own->read_ns[slot]);
		break;
	case BLOCK_IO_WRITE:
		COUNT_UP(own->write_ns[slot]);
		break;
	case BLOCK_IO_FLUSH:
		COUNT_UP(own->flush_ns[slot]);
		break;
	case BLOCK_IO_DISCARD:
	case BLOCK_IO_SECURE_ERASE:
	case BLOCK_IO_WRITE_ZEROES:
		COUNT_UP(own->discard_ns[slot]);
		break;
	default:
		COUNT_UP(own->other_ns[slot]);
	}
}

static __always_inline int inserted(struct request *rq)
{
	struct open_request *its = find(rq);

	if (!its || !its->is_back)
		begin(rq, bpf_ktime_get_ns(), 0);
	return 0;
}

static __always_inline int issued(struct request *rq)
{
	struct open_request *its = find(rq);
	__u64 now_ns = bpf_ktime_get_ns();

	if (!its || (its->issued_ns && !its->is_back)) {
		begin(rq, now_ns, now_ns);
		return 0;
	}
	if (!its->issued_ns) {
		/* While it waited others may have been merged into it. */
		its->sector = rq->__sector;
		its->size_bytes = rq->__data_len;
		its->cmd_flags = rq->cmd_flags;
	}
	its->issued_ns = now_ns;
	its->is_back = 0;
	return 0;
}

static __always_inline int requeued(struct request *rq)
{
	struct open_request *its = find(rq);

	/* One that went to the driver at once, which takes nothing now: it was neither inserted nor issued. */
	if (!its) {
		begin(rq, bpf_ktime_get_ns(), 0);
		its = find(rq);
	}
	if (its) {
		its->requeues++;
		its->is_back = 1;
	}
	MEASURE_ONE(requeues);
	return 0;
}

static __always_inline int merged(struct request *rq)
{
	forget(rq);
	MEASURE_ONE(merged);
	return 0;
}

/* Kernels before Linux 5.16 (8a7d267b4a2c) give the status as the errno that stands for it: blk_errors of block/blk-core.c. */
static __always_inline __u32 status_of(int error)
{
	switch (error) {
	case -EOPNOTSUPP:
		return BLOCK_IO_NOTSUPP;
	case -ETIMEDOUT:
		return BLOCK_IO_TIMEOUT;
	case -ENOSPC:
		return BLOCK_IO_NOSPC;
	case -ENOLINK:
		return BLOCK_IO_TRANSPORT;
	case -EREMOTEIO:
		return BLOCK_IO_TARGET;
	case -EBADE:
		return BLOCK_IO_RESV_CONFLICT;
	case -ENODATA:
		return BLOCK_IO_MEDIUM;
	case -EILSEQ:
		return BLOCK_IO_PROTECTION;
	case -ENOMEM:
		return BLOCK_IO_RESOURCE;
	case -EAGAIN:
		return BLOCK_IO_AGAIN;
	}
	return error < 0 ? BLOCK_IO_IOERR : error;
}

/* Until Linux 5.11 (a54895fa057c) these events gave the queue first. */
#define ON(event, happened)                                                                                            \
	SEC("?tp_btf/block_rq_" #event)                                                                                \
	int BPF_PROG(on_##event##__1, struct request *rq)                                                              \
	{                                                                                                              \
		return happened(rq);                                                                                   \
	}                                                                                                              \
	SEC("?tp_btf/block_rq_" #event)                                                                                \
	int BPF_PROG(on_##event##__2, struct request_queue *q, struct request *rq)                                     \
	{                                                                                                              \
		return happened(rq);                                                                                   \
	}

ON(insert, inserted)
ON(issue, issued)
ON(requeue, requeued)
ON(merge, merged)

SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_complete, struct request *rq, int error, unsigned int done_bytes)
{
	struct open_request *its = find(rq);
	__u64 now_ns;

	if (!its) {
		/* A request without data that asks for a flush is none for the driver: the flush is. */
		if (done_bytes && done_bytes >= rq->__data_len)
			MEASURE_ONE(untimed);
		return 0;
	}
	if (error && !its->status)
		its->status = status_of(error);
	if (done_bytes < rq->__data_len)
		return 0; /* the rest is yet to come */
	now_ns = bpf_ktime_get_ns();
	measure(its->cmd_flags & OPERATION_MASK, now_ns - its->since_ns);
	if (its->status)
		MEASURE_ONE(errors);
	if (its->status || now_ns - its->since_ns >= threshold_ns)
		report(rq, its, BLOCK_IO_DONE, now_ns);
	forget(rq);
	return 0;
}

/* Whether this address no longer holds that request: one that is free has no reference, and a device may be gone with all. */
static __always_inline bool is_gone(struct request *rq, struct open_request *its)
{
	int references = 0;

	bpf_core_read(&references, sizeof(references), &rq->ref);
	return !references || BPF_CORE_READ(rq, q) != its->queue;
}

static long look_at(struct bpf_map *map, const __u64 *key, struct open_request *value, const __u64 *now_ns)
{
	struct open_request its = *value;
	struct request *rq = (struct request *)*key;

	if ((__s64)(*now_ns - its.since_ns) < (__s64)threshold_ns)
		return 0;
	if (is_gone(rq, &its)) {
		forget(rq);
		MEASURE_ONE(stale);
		return 0;
	}
	/* It was copied while another CPU might give its place to the next. */
	if (*key == (__u64)rq && value->since_ns == its.since_ns)
		report(rq, &its, its.issued_ns && !its.is_back ? BLOCK_IO_ISSUED : BLOCK_IO_QUEUED, *now_ns);
	return 0;
}

/* The agent runs it once a second: what is open for longer than the threshold is a record each time. */
SEC("syscall")
int report_open(void *unused)
{
	__u64 now_ns = bpf_ktime_get_ns();

	bpf_for_each_map_elem(&open_requests, look_at, &now_ns, 0);
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
