"""The only door: authenticates, authorises, limits, then calls inside."""
