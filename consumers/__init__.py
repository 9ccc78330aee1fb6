"""From the log to the lake: transports, decoders, books, the collector and the commands."""
