"""A seeded discrete-event model of microservices that emits honest telemetry: for demos, load and regression.

Nothing here knows how detectors work, and no detector may be designed around it.
"""

from simulator.config import FaultPlan, ScheduleError, SimulationConfig, load_schedule
from simulator.run import simulate
from simulator.sink import MemorySink, Sink, Summary

__all__ = [
    "FaultPlan",
    "MemorySink",
    "ScheduleError",
    "SimulationConfig",
    "Sink",
    "Summary",
    "load_schedule",
    "simulate",
]
