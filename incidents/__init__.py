"""Correlation, lifecycle, ranked causes, memory and reports."""
