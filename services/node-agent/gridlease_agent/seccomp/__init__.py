"""The strict system call profile of a task: data (``strict.json``) and its two renderings."""
