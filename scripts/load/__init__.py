"""Payments made up by a seed: users, merchants and devices, planted fraud, and faults as asked for."""
