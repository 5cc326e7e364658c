"""Recomputes a bill from signed meter reports and published prices; knows nothing of billing."""
