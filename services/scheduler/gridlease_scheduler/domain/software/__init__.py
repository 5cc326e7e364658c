"""Which programs run on which driver and device: tables, rules, verdicts."""
