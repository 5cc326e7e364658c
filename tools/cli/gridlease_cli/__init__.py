"""The command ``gridlease``: tables for people, JSON and YAML for programs."""
