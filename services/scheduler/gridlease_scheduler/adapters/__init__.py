"""The outside, as ``ports`` asks for it."""
