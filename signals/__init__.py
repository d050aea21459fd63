"""The records and column schemas that flow: OTLP decode, entity identity, event-time buckets and rollups."""
