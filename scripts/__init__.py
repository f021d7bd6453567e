"""What a person runs beside the command line: local services, demo, traffic, benchmarks, fault tests."""
