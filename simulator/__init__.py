"""A discrete-event model of microservices that emits honest telemetry, for demo, load and regression."""
