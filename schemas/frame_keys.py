"""The keys of a frame's map, and the integers that some of its fields hold; schemas/WIRE.md."""

from typing import Final

VERSION: Final = 1
# New fields get the next number, with a default on decode; no field changes type; the version stays physically
# first and the checksum last, also in every later version.
K_VERSION, K_STREAM, K_RUN, K_NUMBER, K_FIRST, K_NEXT, K_COUNT = range(7)
K_LOSSES, K_TS_FIRST, K_TS_LAST, K_REALTIME, K_SNAPSHOT = range(7, 12)
K_ENCODING, K_ENCODING_VERSION, K_DESCRIPTOR, K_CODEC, K_BODY_BYTES, K_BODY = range(12, 18)
K_CRC: Final = 127
CODEC_NONE, CODEC_ZSTD = 0, 1
#: A frame's last bytes: 0xce, then its checksum, big endian.
CRC_TAIL_BYTES: Final = 5
