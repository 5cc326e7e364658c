"""What placements draw, cost and emit; caps, clean hours, idle hosts."""
