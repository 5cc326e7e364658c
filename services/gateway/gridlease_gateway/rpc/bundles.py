"""Bundles: uploaded by tenants at the door, fetched by nodes over the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message
from gridlease.gateway.v1 import bundle_pb2, bundle_pb2_grpc
from gridlease.gateway.v1 import gateway_pb2 as pb

from gridlease_gateway.calls import Call
from gridlease_gateway.ports import BundleFiles, BundleIndex


class Bundles:
    """JobService.UploadBundle."""

    def __init__(self, files: BundleFiles, index: BundleIndex) -> None:
        self._files = files
        self._index = index

    async def upload_bundle(
        self, call: Call, requests: AsyncIterator[pb.UploadBundleRequest]
    ) -> Message:
        project = call.caller.own_project().removeprefix("projects/")
        upload = self._files.upload()
        try:
            async for piece in requests:
                upload.write(piece.content)
            digest, size_bytes = await upload.keep()
        finally:
            upload.drop()
        await self._index.add(project, digest, size_bytes)
        return pb.UploadBundleResponse(digest=digest, size_bytes=size_bytes)


class BundleContent(bundle_pb2_grpc.BundleContentServiceServicer):
    """BundleContentService on the mesh: who has the digest may read."""

    def __init__(self, files: BundleFiles) -> None:
        self._files = files

    async def ReadBundle(  # noqa: N802 - the wire's name
        self, request: bundle_pb2.ReadBundleRequest, _context: Any
    ) -> AsyncIterator[bundle_pb2.ReadBundleResponse]:
        async for piece in self._files.read(request.digest):
            yield bundle_pb2.ReadBundleResponse(content=piece)
