"""Paths between places, and what is promised on them."""
