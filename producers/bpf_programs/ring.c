/*
 * Reads a mapped BPF ring buffer: what plain Python cannot, because the order of its loads and stores is not its own.
 *
 * The kernel writes a record's header with the busy bit, moves the producer's position past it (release), and clears
 * the bit when the record is committed (exchange). So a reader loads the position (acquire), then the header (acquire),
 * and only then the data; it stores its own position (release) when it has copied, and the kernel takes that as room.
 * The data is mapped twice, one behind the other, so a stretch that wraps is one piece.
 *
 * Nothing here trusts the ring: no byte outside of the two mappings is read, whatever positions and headers say.
 * Positions count bytes, never wrap on 64 bits, and are masked to an index.
 * Source: kernel/bpf/ringbuf.c (__bpf_ringbuf_reserve, bpf_ringbuf_commit, ringbuf_map_mmap).
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define BUSY (UINT32_C(1) << 31)
#define DISCARDED (UINT32_C(1) << 30)
#define LENGTH_MASK (DISCARDED - 1)
#define HEAD_BYTES 8

_Static_assert(sizeof(long) == 8, "the positions of a ring are longs, read here as 64 bits");
_Static_assert(ATOMIC_LONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "no lock can be shared with the kernel");

enum status {
	EMPTY,        /* everything up to the producer's position was taken */
	BOUND,        /* the room, or the number of records, ended it */
	STILL_BUSY,   /* the next record is reserved and not committed */
	BAD_POSITION, /* the positions contradict each other */
	BAD_LENGTH,   /* the next record is longer than what the ring holds */
	TOO_LONG,     /* the next record does not fit into the room even alone */
};

struct ring {
	_Atomic uint64_t *consumer;
	const _Atomic uint64_t *producer;
	const uint8_t *data; /* 2 * bytes of them */
	uint64_t bytes;      /* a power of two */
};

struct taken {
	uint64_t next;      /* the position behind what was taken; where nothing was, that of the next record */
	uint64_t bytes;     /* copied */
	uint64_t records;   /* among them */
	uint64_t discarded; /* among them */
	uint64_t first_at;  /* where the data of the first record is in the copy */
	uint64_t last_at;   /* and that of the last */
	uint64_t last_bytes; /* of data in the last record; in the next one where that is why it ended */
};

/* Another thread of the same core can go on meanwhile, also the one that we wait for. */
static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static uint32_t length_when_committed(const uint8_t *head, uint32_t spins_max)
{
	const _Atomic uint32_t *word = (const _Atomic uint32_t *)head;
	uint32_t length = atomic_load_explicit(word, memory_order_acquire);

	while ((length & BUSY) && spins_max--) {
		relax();
		length = atomic_load_explicit(word, memory_order_acquire);
	}
	return length;
}

/* Copies whole records from `position` on into `room_bytes` at `to`, and says in `taken` how far it came. */
int ring_read(const struct ring *ring, uint64_t position, uint8_t *to, uint64_t room_bytes, uint64_t records_max,
	      uint32_t spins_max, struct taken *taken)
{
	uint64_t end = atomic_load_explicit(ring->producer, memory_order_acquire);
	uint64_t consumed = atomic_load_explicit(ring->consumer, memory_order_relaxed);
	uint64_t at = position;
	int status = EMPTY;

	*taken = (struct taken){ .next = position };
	if (position % HEAD_BYTES || end % HEAD_BYTES || consumed > position || position > end ||
	    end - consumed > ring->bytes)
		return BAD_POSITION;
	while (at < end) {
		uint32_t length = length_when_committed(ring->data + (at & (ring->bytes - 1)), spins_max);
		uint64_t data_bytes = length & LENGTH_MASK;
		uint64_t whole_bytes = (HEAD_BYTES + data_bytes + 7) & ~(uint64_t)7;

		if (length & BUSY) {
			status = STILL_BUSY;
			break;
		}
		if (whole_bytes > end - at) {
			taken->last_bytes = data_bytes;
			status = BAD_LENGTH;
			break;
		}
		if (at + whole_bytes - position > room_bytes || taken->records == records_max) {
			status = at == position ? TOO_LONG : BOUND;
			if (status == TOO_LONG)
				taken->last_bytes = data_bytes;
			break;
		}
		if (length & DISCARDED) {
			taken->discarded++;
		} else {
			taken->last_at = at + HEAD_BYTES - position;
			taken->last_bytes = data_bytes;
			if (!taken->records++)
				taken->first_at = taken->last_at;
		}
		at += whole_bytes;
	}
	taken->next = at;
	taken->bytes = at - position;
	if (taken->bytes)
		__builtin_memcpy(to, ring->data + (position & (ring->bytes - 1)), taken->bytes);
	return status;
}

/* Gives the kernel the room below `position` back: what was there has been copied. */
void ring_release(const struct ring *ring, uint64_t position)
{
	atomic_store_explicit(ring->consumer, position, memory_order_release);
}

/* The same, if the kernel still holds `before` for the reader's position; 0 if another reader moved it. */
int ring_release_from(const struct ring *ring, uint64_t before, uint64_t position)
{
	return atomic_compare_exchange_strong_explicit(ring->consumer, &before, position, memory_order_release,
						       memory_order_relaxed);
}

/* Return the positions as they are now. */
uint64_t ring_consumed(const struct ring *ring)
{
	return atomic_load_explicit(ring->consumer, memory_order_acquire);
}

uint64_t ring_produced(const struct ring *ring)
{
	return atomic_load_explicit(ring->producer, memory_order_acquire);
}
