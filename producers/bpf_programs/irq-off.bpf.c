/*
 * irq-off: a handler of an interrupt or a softirq ran for longer than a threshold.
 *
 * Handlers of interrupts do not nest, nor do softirqs; an interrupt may come within a softirq, whose time
 * then has that of the handlers in it. Source: kernel/irq/handle.c (__handle_irq_event_percpu), kernel/softirq.c
 * (handle_softirqs), arch/x86/include/asm/trace/irq_vectors.h.
 */
#include "record.h"

const volatile __u64 threshold_ns = 1000 * 1000;

enum irq_off_kind {
	IRQ_OFF_HARDIRQ, /* the handler of a device's interrupt */
	IRQ_OFF_VECTOR, /* one of the kernel's own interrupts; x86 */
	IRQ_OFF_SOFTIRQ,
};

/* Of include/linux/interrupt.h, without its _SOFTIRQ. */
enum irq_off_softirq {
	IRQ_OFF_HI = 0,
	IRQ_OFF_TIMER = 1,
	IRQ_OFF_NET_TX = 2,
	IRQ_OFF_NET_RX = 3,
	IRQ_OFF_BLOCK = 4,
	IRQ_OFF_IRQ_POLL = 5,
	IRQ_OFF_TASKLET = 6,
	IRQ_OFF_SCHED = 7,
	IRQ_OFF_HRTIMER = 8,
	IRQ_OFF_RCU = 9,
	IRQ_OFF_NO_SOFTIRQ = 255,
};

struct irq_off {
	RECORD_HEAD(enum irq_off_kind kind); /* the time is that of its end */
	__u64 duration_ns; /* from its begin to its end */
	__u64 interrupted_ns; /* of that, in handlers of interrupts that came within: only a softirq has any */
	__u32 number; /* of the interrupt, the vector or the softirq */
	enum irq_off_softirq softirq;
	__u32 pid; /* who was interrupted; 0 is the idle task */
	__u32 tgid;
	char name[32]; /* what the handler's driver calls it, or the vector; empty for a softirq */
	char comm[TASK_COMM_LEN];
};
RECORD_TYPE(irq_off);

struct measures {
	__u64 hardirq_ns[SLOTS]; /* of every handler, also the short ones */
	__u64 vector_ns[SLOTS];
	__u64 softirq_ns[SLOTS];
};
MEASURES

/* Of one CPU: what is running there. */
struct running {
	__u64 hard_since_ns; /* 0: nothing */
	__u64 soft_since_ns;
	__u64 hard_sum_ns; /* in all handlers of interrupts */
	__u64 hard_sum_before_ns; /* when the softirq began */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct running);
} running SEC(".maps");

static __always_inline struct running *own_running(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&running, &zero);
}

struct span {
	enum irq_off_kind kind;
	__u32 number;
	__u64 end_ns;
	__u64 duration_ns;
	__u64 interrupted_ns;
};

/* Returns the record without its name. */
static __always_inline struct irq_off *begin(const struct span *span)
{
	__u64 cpu_seq, thread = bpf_get_current_pid_tgid();
	struct irq_off *record = reserve_interruptible(sizeof(*record), &cpu_seq);

	if (!record)
		return NULL;
	record->ts_ns = span->end_ns;
	record->cpu = bpf_get_smp_processor_id();
	record->kind = span->kind;
	record->cpu_seq = cpu_seq;
	record->duration_ns = span->duration_ns;
	record->interrupted_ns = span->interrupted_ns;
	record->number = span->number;
	record->softirq = span->kind == IRQ_OFF_SOFTIRQ ? span->number : IRQ_OFF_NO_SOFTIRQ;
	record->pid = thread;
	record->tgid = thread >> 32;
	__builtin_memset(record->name, 0, sizeof(record->name));
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	return record;
}

static __always_inline int hard_begins(void)
{
	struct running *its = own_running();

	if (its)
		its->hard_since_ns = bpf_ktime_get_ns();
	return 0;
}

/* Returns whether a handler ended whose begin was seen, and how. */
static __always_inline bool hard_ends(enum irq_off_kind kind, __u32 number, struct span *span)
{
	struct running *its = own_running();
	struct measures *own = own_measures();

	if (!its || !its->hard_since_ns)
		return false;
	span->kind = kind;
	span->number = number;
	span->end_ns = bpf_ktime_get_ns();
	span->duration_ns = span->end_ns - its->hard_since_ns;
	span->interrupted_ns = 0;
	its->hard_sum_ns += span->duration_ns;
	its->hard_since_ns = 0;
	if (own) {
		__u64 *slots = kind == IRQ_OFF_HARDIRQ ? own->hardirq_ns : own->vector_ns;

		slots[slot_of(span->duration_ns)]++;
	}
	return true;
}

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(on_hardirq_entry, int irq, struct irqaction *action)
{
	return hard_begins();
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(on_hardirq_exit, int irq, struct irqaction *action)
{
	struct irq_off *record;
	struct span span;

	if (hard_ends(IRQ_OFF_HARDIRQ, irq, &span) && span.duration_ns >= threshold_ns && (record = begin(&span))) {
		bpf_probe_read_kernel_str(record->name, sizeof(record->name), action->name);
		commit(record, sizeof(*record));
	}
	return 0;
}

/* Interrupts that have no struct irqaction, apart from the one that only lets another thread run. */
#define ON_VECTOR(vector_name)                                                                                         \
	SEC("?tp_btf/" #vector_name "_entry")                                                                          \
	int BPF_PROG(on_##vector_name##_entry)                                                                         \
	{                                                                                                              \
		return hard_begins();                                                                                  \
	}                                                                                                              \
	SEC("?tp_btf/" #vector_name "_exit")                                                                           \
	int BPF_PROG(on_##vector_name##_exit, int vector)                                                              \
	{                                                                                                              \
		struct irq_off *record;                                                                                \
		struct span span;                                                                                      \
                                                                                                                       \
		if (hard_ends(IRQ_OFF_VECTOR, vector, &span) && span.duration_ns >= threshold_ns &&                    \
		    (record = begin(&span))) {                                                                         \
			__builtin_memcpy(record->name, #vector_name, sizeof(#vector_name));                            \
			commit(record, sizeof(*record));                                                               \
		}                                                                                                      \
		return 0;                                                                                              \
	}

ON_VECTOR(local_timer)
ON_VECTOR(call_function)
ON_VECTOR(call_function_single)
ON_VECTOR(irq_work)

/* An interrupt between the two lines counts into the duration alone, in both: so it is never less than what is in it. */
SEC("tp_btf/softirq_entry")
int BPF_PROG(on_softirq_entry, unsigned int number)
{
	struct running *its = own_running();

	if (its) {
		its->soft_since_ns = bpf_ktime_get_ns();
		its->hard_sum_before_ns = *(volatile __u64 *)&its->hard_sum_ns;
	}
	return 0;
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(on_softirq_exit, unsigned int number)
{
	struct running *its = own_running();
	struct measures *own = own_measures();
	struct irq_off *record;
	struct span span;

	if (!its || !its->soft_since_ns)
		return 0;
	span.kind = IRQ_OFF_SOFTIRQ;
	span.number = number;
	span.interrupted_ns = *(volatile __u64 *)&its->hard_sum_ns - its->hard_sum_before_ns;
	span.end_ns = bpf_ktime_get_ns();
	span.duration_ns = span.end_ns - its->soft_since_ns;
	its->soft_since_ns = 0;
	if (own)
		own->softirq_ns[slot_of(span.duration_ns)]++;
	if (span.duration_ns >= threshold_ns && (record = begin(&span)))
		commit(record, sizeof(*record));
	return 0;
}

/* What the kernel asks of programs that use its tracing helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
