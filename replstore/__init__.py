"""A primary/standby replicated SQL storage layer."""
