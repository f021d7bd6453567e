"""The online store in Redis: writing behind a fence of event time, and reading."""
