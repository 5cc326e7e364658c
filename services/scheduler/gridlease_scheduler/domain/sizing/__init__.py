"""How many devices or replicas a job should have, by what it tells of itself."""
