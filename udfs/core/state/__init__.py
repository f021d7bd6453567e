"""Stored state as a whole: headers, snapshots, and what becomes of it when a definition changes."""
