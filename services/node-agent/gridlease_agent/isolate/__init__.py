"""What is read of the host to isolate a task: its root file system and its cgroups."""
