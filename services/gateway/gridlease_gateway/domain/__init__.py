"""Pure rules of the door: keys, names, rates, offers."""
