"""Traces replayed on described clusters by the scheduler's own decisions, on a virtual clock."""
