/*
 * What somebody else's program may be: it writes records into a ring that tests pin, as many as a run is told to, and says
 * how many found no room. A run is one BPF_PROG_TEST_RUN, so a test knows every record that there ever was.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

enum shop_kind {
	SHOP_BREAD,
	SHOP_CAKE,
};

struct shop_item {
	__u64 number; /* of the attempt */
	enum shop_kind kind;
	__u16 weight[2];
	char name[16];
	struct shop_item *next;
};
const struct shop_item *const shop_item_record = 0;

struct run {
	__u64 first; /* number of the first record */
	__u32 count;
	__u32 discard_each; /* every so many are taken back; 0: none */
	__u64 written;
	__u64 refused;
	__u64 discarded;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} shop SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} shelf SEC(".maps");

static long write_one(__u32 i, struct run *run)
{
	struct shop_item *item = bpf_ringbuf_reserve(&shop, sizeof(*item), 0);

	if (!item) {
		run->refused++;
		return 0;
	}
	item->number = run->first + i;
	item->kind = i & 1;
	item->weight[0] = i;
	item->weight[1] = 7;
	__builtin_memset(item->name, 0, sizeof(item->name));
	__builtin_memcpy(item->name, "loaf", 4);
	item->next = 0;
	if (run->discard_each && i % run->discard_each == 0) {
		run->discarded++;
		bpf_ringbuf_discard(item, 0);
	} else {
		run->written++;
		bpf_ringbuf_submit(item, 0);
	}
	return 0;
}

SEC("syscall")
int write_some(struct run *told)
{
	struct run run = *told;
	__u32 zero = 0;

	if (!bpf_map_lookup_elem(&shelf, &zero))
		return 1;
	bpf_loop(run.count, write_one, &run, 0);
	told->written = run.written;
	told->refused = run.refused;
	told->discarded = run.discarded;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
