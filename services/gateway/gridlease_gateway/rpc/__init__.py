"""What each public method does: decode, call inside as the key's tenant and project, encode."""
