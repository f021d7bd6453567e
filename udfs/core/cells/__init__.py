"""Keyed cells: state in memory, and the same as segments of a durable log."""
