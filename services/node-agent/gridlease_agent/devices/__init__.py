"""Accelerators by one path: a family is a data file, found by files, handed over by CDI."""
