"""What this host is made of: one file a probe, each a function of an injectable root folder."""
