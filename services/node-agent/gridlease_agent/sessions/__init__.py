"""Sessions in running sandboxes: programs beside the task, and connections into it."""
