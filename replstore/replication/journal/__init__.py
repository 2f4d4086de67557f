"""Replication by journal: triggers record which keys changed, the shipper copies those rows' current state."""
