"""Many videos from a list: in one process, or on many machines through Ray."""
