"""The drill: models are promoted, forced back and refused under load, and every event is accounted for."""
