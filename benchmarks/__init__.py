"""Measurements.  Every figure in the documents comes from here."""
