"""Pure values that every room shares: faults, money, resources, units, ids, clocks. Stdlib only."""
