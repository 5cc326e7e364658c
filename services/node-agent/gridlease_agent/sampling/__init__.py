"""What the node measures once a second, read cheaply: every file below an injectable root."""
