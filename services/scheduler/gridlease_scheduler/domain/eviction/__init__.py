"""Who gives way, to whom, and which few moves make room."""
