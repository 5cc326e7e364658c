"""Clients of the public door: ``Client`` (async), ``SyncClient``, job files and bundles.

async with Client.from_env() as client:
    job = await client.submit(jobfile.load(Path("job.yaml")))
    async for piece in client.logs(job.name, follow=True):
        sys.stdout.buffer.write(piece)
"""

from __future__ import annotations

from gridlease_sdk.client import Client
from gridlease_sdk.jobfile import Draft
from gridlease_sdk.sync import SyncClient

__all__ = ["Client", "Draft", "SyncClient"]
