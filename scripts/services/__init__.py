"""Kafka, Redis, MLflow and Flink as local processes on 127.0.0.1, for the demo and for end-to-end tests."""
