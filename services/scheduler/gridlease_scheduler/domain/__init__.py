"""What the scheduler decides, as pure functions: no clock, no random, no I/O."""
