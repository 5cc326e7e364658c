"""Real servers as fixtures, bounded waiting, and what else tests of every room share."""
