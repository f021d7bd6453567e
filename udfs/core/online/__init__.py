"""Rows of the online store: what is written of a batch, and what a reader makes of an answer."""
