"""Trace assembly, the aged service graph, and the evidence that flows along it."""
