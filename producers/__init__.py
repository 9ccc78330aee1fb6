"""The agent: sources that read kernel surfaces, the log they append to, and the shipper to Kafka."""
