/* For benchmarks: a record of 64 bytes for each call of getppid(2), in a ring that is pinned for others to read. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

typedef __u64 u64;
typedef __u32 u32;

#define NR_GETPPID_X86_64 110
#define NR_GETPPID_ARM64 173

struct call {
	u64 ts_ns;
	u32 cpu;
	u32 number;
	u64 id;
	u32 pid;
	u32 tgid;
	char comm[16];
	u64 more[2];
};
const struct call *const call_record = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps"); /* written, refused */

static void count(u32 which)
{
	u64 *found = bpf_map_lookup_elem(&counts, &which);

	if (found)
		__sync_fetch_and_add(found, 1);
}

SEC("raw_tracepoint/sys_enter")
int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = ctx->args[1], both;
	struct call *record;

	if (id != NR_GETPPID_X86_64 && id != NR_GETPPID_ARM64)
		return 0;
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count(1);
		return 0;
	}
	both = bpf_get_current_pid_tgid();
	record->ts_ns = bpf_ktime_get_ns();
	record->cpu = bpf_get_smp_processor_id();
	record->number = 0;
	record->id = id;
	record->pid = both;
	record->tgid = both >> 32;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	record->more[0] = record->more[1] = 0;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	count(0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
