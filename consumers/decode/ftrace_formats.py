"""Descriptors of trace pages to rows of the table `artifacts`: what the pages of a boot are decoded with."""

from typing import Final

from consumers.decode import artifacts
from schemas import ftrace

TABLES: Final = artifacts.TABLES
POSITION: Final = artifacts.POSITION
ONE_ROW_EACH: Final = artifacts.ONE_ROW_EACH
owns = artifacts.owns
spec = artifacts.spec
columns_sql, time_order = artifacts.columns_sql, artifacts.time_order
head = artifacts.head
trim = artifacts.trim
text_lines = artifacts.text_lines
check = artifacts.checked(ftrace.unpack_formats)
decode_many = artifacts.decoding(check)
