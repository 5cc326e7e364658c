"""Billing's ports on real parts."""
