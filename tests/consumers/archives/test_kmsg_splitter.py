from hypothesis import given
from hypothesis import strategies as st

from consumers.archives.kmsg_splitter import DumpSplitter
from schemas import limits

RECORDS = [
    b"6,1,5,-;first\n",
    b"6,2,6,-;usb\n SUBSYSTEM=usb\n DEVICE=c189:0\n",
    b"6,3,7,-; a text may begin with a space\n",
    b"\n",
    b"6,4,8,c;carriage\rreturn and \x0b\x0c\x85\n",
    b"6,5,9,-;no newline at the end",
]


def split(*chunks: bytes) -> list[bytes]:
    splitter = DumpSplitter()
    records = [record for chunk in chunks for record in splitter.feed(chunk)]
    return records + splitter.close()


def test_cut_at_every_byte():
    dump = b"".join(RECORDS)
    for at in range(len(dump) + 1):
        assert split(dump[:at], dump[at:]) == RECORDS
    assert split(*(dump[i : i + 1] for i in range(len(dump)))) == RECORDS


def test_nothing_gives_nothing():
    assert split() == split(b"") == []


def test_a_dump_may_begin_within_a_record():
    assert split(b" DEVICE=x\n6,1,5,-;a\n") == [b" DEVICE=x\n", b"6,1,5,-;a\n"]


def test_a_record_is_given_as_soon_as_the_next_line_begins():
    splitter = DumpSplitter()
    assert splitter.feed(b"6,1,5,-;a\n") == []
    assert splitter.feed(b" A=b\n") == []
    assert splitter.feed(b"6") == [b"6,1,5,-;a\n A=b\n"]
    assert splitter.close() == [b"6"]
    assert splitter.close() == []


def test_a_huge_line_is_cut_and_counted_once():
    splitter = DumpSplitter()
    size = limits.RECORD_BYTES_MAX
    records = []
    for _ in range(40):
        records += splitter.feed(b"x" * 5000)
    records += splitter.feed(b"\n A=b\n6,1,5,-;next\n")
    records += splitter.close()
    assert records == [b"x" * size, b"6,1,5,-;next\n"]
    assert splitter.cut_records == 1


def test_the_longest_record_is_not_cut():
    splitter = DumpSplitter()
    record = b"x" * (limits.RECORD_BYTES_MAX - 1) + b"\n"
    assert splitter.feed(record + record) + splitter.close() == [record, record]
    assert splitter.cut_records == 0


@given(st.lists(st.text("a \n\r,;", max_size=12).map(str.encode), max_size=12))
def test_no_byte_is_lost_wherever_chunks_end(chunks):
    records = split(*chunks)
    assert b"".join(records) == b"".join(chunks)
    assert records == split(b"".join(chunks))
    assert all(not record.startswith(b" ") for record in records[1:])
