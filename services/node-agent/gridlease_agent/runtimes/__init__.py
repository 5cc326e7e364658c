"""The ways to run a sandbox: one record in (``SandboxSpec``), one launch plan out, purely."""
