/*
 * Reads the CPU's own counter between two reads of CLOCK_MONOTONIC: the time stamp counter (RDTSC) of x86-64, the virtual
 * counter (CNTVCT_EL0) of arm64. No system call gives it, and from Python the bracket would be a hundred times as wide.
 *
 * Neither instruction waits for those before it: the fences keep it between the two reads.
 * Source: Intel SDM volume 2B, RDTSC; Arm ARM D23.12.10, CNTVCT_EL0; arch/x86/include/asm/tsc.h (rdtsc_ordered).
 */
#include <stdint.h>

#define MONOTONIC 1
#define NS_PER_S INT64_C(1000000000)

/* struct timespec of any 64-bit Linux; the functions are found in the process that loads this. */
struct time {
	int64_t s;
	int64_t ns;
};

extern int clock_gettime(int clock, struct time *now);
extern int sched_getcpu(void);

struct counted {
	int64_t before_ns; /* CLOCK_MONOTONIC */
	int64_t after_ns;
	uint64_t ticks; /* somewhere in between */
	int64_t cpu;    /* where that was, if the thread was not moved meanwhile */
};

static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
#elif defined(__aarch64__)
	uint64_t found;

	__asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\tisb" : "=r"(found) : : "memory");
	return found;
#endif
}

static inline int64_t monotonic_ns(void)
{
	struct time now;

	clock_gettime(MONOTONIC, &now);
	return now.s * NS_PER_S + now.ns;
}

/* Gives the tightest of `tries` readings. */
void counter_read(uint32_t tries, struct counted *best)
{
	int64_t least_ns = INT64_MAX;

	while (tries--) {
		struct counted now;

		now.cpu = sched_getcpu();
		now.before_ns = monotonic_ns();
		now.ticks = ticks();
		now.after_ns = monotonic_ns();
		if (now.after_ns - now.before_ns < least_ns) {
			least_ns = now.after_ns - now.before_ns;
			*best = now;
		}
	}
}
