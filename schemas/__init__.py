"""The wire contract: streams, losses, frames, the append format, and the registry of surfaces.

This package imports neither `producers` nor `consumers`, nor pyarrow, nor a Kafka client.
"""
