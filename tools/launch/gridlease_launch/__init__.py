"""One machine as its own data centre: the supervisor behind ./dev up, and the demo."""
