"""Who is served first, who may have how much, and what is kept for those to come."""
