"""Every limit of the wire, in one place. Each is checked on decode, before anything of that size is allocated."""

from typing import Final

#: Longest decompressed frame body.
BODY_BYTES_MAX: Final = 1 << 20
#: Longest encoded frame; leaves room under Kafka's `message.max.bytes` of 2 MiB set by `hypocenter topics create`.
FRAME_BYTES_MAX: Final = BODY_BYTES_MAX + (1 << 17)
#: Longest text field of a frame (machine, surface, instance, ...), in encoded bytes.
TEXT_BYTES_MAX: Final = 255
#: Most losses that one frame can carry; a producer with more sends another frame.
FRAME_LOSSES_MAX: Final = 1024
#: Most fields in the map of a frame, known and unknown ones.
FRAME_FIELDS_MAX: Final = 64
#: Longest descriptor hash.
DESCRIPTOR_BYTES_MAX: Final = 255
#: Most records in one frame.
FRAME_RECORDS_MAX: Final = 1 << 16
#: Positions, counts and times are signed 64-bit in Parquet.
INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)
#: Longest single record of a surface that keeps record lengths (/dev/kmsg gives at most 8 KiB today).
RECORD_BYTES_MAX: Final = 1 << 16
#: Longest sub-buffer of a trace ring (the kernel's largest order is 7), and the shortest page of any machine.
TRACE_PAGE_BYTES_MAX: Final = 1 << 19
TRACE_PAGE_BYTES_LEAST: Final = 1 << 12
#: Most events in one description of trace events, and the longest text of one; the whole is a body.
TRACE_EVENTS_MAX: Final = 4096
TRACE_FORMAT_BYTES_MAX: Final = 1 << 16
#: Smallest and largest BPF ring buffer: a page of any machine, and what the 30 bits of a record's length can name.
BPF_RING_BYTES_LEAST: Final = 1 << 12
BPF_RING_BYTES_MAX: Final = 1 << 30
#: Longest BTF in a description of BPF records; the rest of the description is a body's remaining 4 KiB.
BPF_BTF_BYTES_MAX: Final = BODY_BYTES_MAX - (1 << 12)
#: Longest heartbeat body, and the most keys and counters in it.
HEARTBEAT_BYTES_MAX: Final = 1 << 16
HEARTBEAT_KEYS_MAX: Final = 64
HEARTBEAT_COUNTERS_MAX: Final = 256
#: Most fields in a record of a state surface, and the most elements of one of its arrays or maps.
STATE_FIELDS_MAX: Final = 256
STATE_ELEMENTS_MAX: Final = 1 << 14
#: Bytes of a bad input kept in a dead letter.
DEAD_LETTER_BYTES_MAX: Final = 256
#: Longest greeting of the relay protocol, and the most bytes that a guest sends ahead of what is acknowledged.
RELAY_HELLO_BYTES_MAX: Final = 1 << 12
RELAY_WINDOW_BYTES_MAX: Final = 1 << 26
