"""Measurements, each with a check of what it measures."""
