"""Kafka by hand: topics, and reading one to its end."""
