"""What the agent decides, as pure functions: no clock, no random, no I/O."""
