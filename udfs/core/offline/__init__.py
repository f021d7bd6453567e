"""The same path without Flink: backfill, parity with a running job, and the archive it reads."""
