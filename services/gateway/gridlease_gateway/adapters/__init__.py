"""The door's real parts: PostgreSQL, a folder of bundles, the mesh, grpc.aio."""
