"""The flights that left New York in 2013, as event streams: read, turned into events, spoiled, replayed."""
