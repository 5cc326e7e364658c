"""The agent's ports on real parts: SQLite, the mesh, the file system."""
