"""Values by key up to so many bytes."""

from consumers.held import Held


def test_the_newest_and_the_last_asked_for_stay():
    held = Held(10)
    for key, size_bytes in ((b"a", 4), (b"b", 4), (b"a", 5)):
        held.put(key, key.upper(), size_bytes)
    assert (held.get(b"b"), list(held)) == (b"B", [b"a", b"b"])
    held.put(b"c", b"C", 2)
    assert (held.get(b"a"), list(held)) == (None, [b"b", b"c"])
    held.put(b"d", b"D", 11)
    assert list(held) == []
    held.put(b"e", b"E", 10)
    assert held.get(b"e") == b"E"
