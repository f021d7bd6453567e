"""What happens to a batch: thin PyFlink functions, one verb per file; the logic is in `udfs.core`."""
