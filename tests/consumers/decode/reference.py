"""One record of /dev/kmsg parsed the plain way, to compare the fast decoder with. Shares no code with it."""

HEX = b"0123456789abcdefABCDEF"
PRINTABLE = bytes(range(0x20, 0x7F))


def parse(record: bytes, expected_seq: int) -> dict | str:
    """Return the row's own columns, or the reason why there is none."""
    header, semicolon, rest = record.partition(b";")
    parts = header.split(b",")
    if not semicolon or len(parts) < 4 or any(byte not in PRINTABLE for byte in header):
        return "record"
    for number in parts[:3]:
        if not 1 <= len(number) <= 20 or any(byte not in b"0123456789" for byte in number):
            return "record"
    prio, seq, ts_us = (int(number) for number in parts[:3])
    if prio >> 3 > 32767 or seq >= 1 << 63 or ts_us * 1000 >= 1 << 63:
        return "record"
    if seq != expected_seq:
        return "sequence"
    callers = [part for part in parts[4:] if part.startswith(b"caller=")]
    others = list(parts[4:])
    if callers:
        others.remove(callers[0])
    text, newline, lines = rest.partition(b"\n")
    raw, torn = unescape(text)
    message = raw.decode("utf-8", "replace")
    fields = {}
    for line in lines.split(b"\n"):
        if not line:
            continue
        key, _, value = (line[1:] if line[:1] == b" " else line).partition(b"=")
        name, content = (unescape(part)[0].decode("utf-8", "replace") for part in (key, value))
        fields[name] = fields[name] + "\n" + content if name in fields else content
    inner = newline and rest.index(b"\n") != len(rest) - 1
    return {
        "seq": seq,
        "ts_ns": ts_us * 1000,
        "facility": prio >> 3,
        "level": prio & 7,
        "flags": parts[3].decode(),
        "caller": callers[0][7:].decode() if callers else None,
        "message": message,
        "fields": list(fields.items()) if inner else None,
        "extra": b",".join(others).decode() if others else None,
        "message_raw": raw if torn or message.encode() != raw else None,
    }


def unescape(text: bytes) -> tuple[bytes, bool]:
    out, torn, i = bytearray(), False, 0
    while i < len(text):
        if text[i] != ord("\\"):
            out.append(text[i])
            i += 1
        elif text[i + 1 : i + 2] == b"x" and len(text) >= i + 4 and text[i + 2] in HEX and text[i + 3] in HEX:
            out.append(int(text[i + 2 : i + 4], 16))
            i += 4
        else:
            torn = True
            out.append(text[i])
            i += 1
    return bytes(out), torn
