"""Billing's services on the mesh: each method decodes, asks its use case, encodes."""
