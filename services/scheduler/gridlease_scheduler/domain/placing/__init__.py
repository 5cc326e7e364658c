"""Where jobs go: which nodes would do, in which order, at what price for the fleet."""
