"""Databases whose own engine copies the data: what replstore asks of them, and the few things that it does there."""
