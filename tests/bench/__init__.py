"""Measurements: ``./dev bench NAME``. Each prints a table and, last, one JSON object."""
