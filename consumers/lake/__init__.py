"""The lake: storage, commit chains, Parquet layout, compaction, snapshots for readers."""
