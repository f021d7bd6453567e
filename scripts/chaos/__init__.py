"""Fault tests of the running scoring job: real services, real kills, and books that must balance afterwards."""
