"""The scheduler's services: decode, one use case, encode."""
