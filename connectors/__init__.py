"""Where batches come from and events go: Kafka, recordings, OTLP files, CloudEvents, dead letters."""
