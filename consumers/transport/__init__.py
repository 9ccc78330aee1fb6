"""Where messages come from: the embedded log, Kafka, or memory; one Protocol, one shared test suite."""
