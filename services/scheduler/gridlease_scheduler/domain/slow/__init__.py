"""What takes longer than a pass: shares by class, prices, the search for an order."""
