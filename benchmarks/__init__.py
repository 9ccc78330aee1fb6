"""Benchmarks: `python -m benchmarks [NAME ...] [--quick]` prints one table. Nothing here is asserted by a test."""
