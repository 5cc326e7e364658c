"""Protobuf to values and back: requests are decoded once, here."""
