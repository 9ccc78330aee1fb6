"""BPF programs and their rings: `source` opens them, `counts` is a surface beside it. Nothing is imported here."""
