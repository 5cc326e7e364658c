# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""SupplierService: partners, for operators that the gateway has authenticated."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from gridlease.billing.v1 import supplier_pb2 as pb
from gridlease.billing.v1 import supplier_pb2_grpc
from gridlease.type.v1 import contract_pb2
from gridlease_kernel.faults import Invalid

from gridlease_billing import suppliers
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.statement import Partner, Place, render
from gridlease_billing.ports import Books
from gridlease_billing.rpc import shapes
from gridlease_billing.supplier_ports import NewContract, Payout

_DEFAULT_PAGE = 1_000
_MOST = 2**62
_MOST_SEGMENT = 2**31
_LINE = (int, str, int, str, str)
_MOVE = (int, int)


class Suppliers(supplier_pb2_grpc.SupplierServiceServicer):
    """Terms, nodes, statements and payouts."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def CreateSupplier(
        self, request: pb.CreateSupplierRequest, context: Any
    ) -> pb.CreateSupplierResponse:
        name = f"suppliers/{request.supplier_id}"
        display_name = shapes.plain(request.display_name)
        made = await suppliers.create_supplier(self._books, name, display_name)
        return pb.CreateSupplierResponse(supplier=_told(made))

    async def ListSuppliers(
        self, request: pb.ListSuppliersRequest, context: Any
    ) -> pb.ListSuppliersResponse:
        found = await suppliers.list_suppliers(self._books)
        return pb.ListSuppliersResponse(suppliers=[_told(it) for it in found])

    async def CreateContract(
        self, request: pb.CreateContractRequest, context: Any
    ) -> pb.CreateContractResponse:
        new = NewContract(
            request.supplier,
            request.share_permyriad,
            request.holdback_permyriad,
            request.holdback_days,
            shapes.plain(request.request_id),
        )
        made = await suppliers.create_contract(self._books, new)
        return pb.CreateContractResponse(supplier=_told(made))

    async def AssignNode(
        self, request: pb.AssignNodeRequest, context: Any
    ) -> pb.AssignNodeResponse:
        node = shapes.resource(request.node, "nodes", "node").removeprefix("nodes/")
        request_id = shapes.plain(request.request_id)
        await suppliers.assign_node(self._books, node, request.supplier, request_id)
        return pb.AssignNodeResponse(node=request.node, supplier=request.supplier)

    async def RenderStatement(
        self, request: pb.RenderStatementRequest, context: Any
    ) -> pb.RenderStatementResponse:
        begin_ms = request.begin_time.ToMilliseconds()
        end_ms = request.end_time.ToMilliseconds() if request.HasField("end_time") else None
        place = _place(request.page_token)
        size = min(request.page_size or _DEFAULT_PAGE, suppliers.LARGEST_PAGE)
        found = await suppliers.statement_page(
            self._books, request.supplier, begin_ms, end_ms, place, size
        )
        content, media_type, file_name = render(found, request.format)
        parts = found.totals.parts
        return pb.RenderStatementResponse(
            content=content,
            media_type=media_type,
            file_name=file_name,
            next_page_token=_token(found.next_place),
            totals=contract_pb2.StatementTotals(
                line_count=found.totals.count,
                amount_nano=parts.total_nano,
                payable_nano=parts.payable_nano,
                holdback_nano=parts.holdback_nano,
                platform_nano=parts.revenue_nano,
            ),
        )

    async def CreatePayout(
        self, request: pb.CreatePayoutRequest, context: Any
    ) -> pb.CreatePayoutResponse:
        payout = Payout(
            request.supplier,
            request.amount_nano,
            shapes.plain(request.note),
            shapes.plain(request.request_id),
        )
        paid, partner = await suppliers.pay_out(self._books, payout)
        return pb.CreatePayoutResponse(amount_nano=paid, supplier=_told(partner))


def _token(place: Place | None) -> str:
    if place is None:
        return ""
    told = json.dumps([place.until_ms, place.line, place.move])
    return base64.urlsafe_b64encode(told.encode()).decode()


def _place(token: str) -> Place | None:
    """What ``_token`` wrote.

    Raises:
        Invalid: BAD_PAGE_TOKEN.
    """
    if not token:
        return None
    try:
        until_ms, line, move = json.loads(base64.b64decode(token, b"-_", validate=True))
        place = Place(until_ms, None if line is None else _key(line, _LINE), _key(move, _MOVE))
        _key([until_ms], (int,))
        if place.line is not None and abs(place.line[2]) >= _MOST_SEGMENT:
            raise ValueError(token)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise Invalid(
            "This page token is none of ours.",
            reason="BAD_PAGE_TOKEN",
            field="page_token",
            remedy="Pass on next_page_token as it came, or leave it empty.",
        ) from error
    return place


def _key(told: Any, kinds: tuple[type, ...]) -> Any:
    """``told`` as a tuple of these kinds, numbers as the books can have them."""
    if not isinstance(told, list) or tuple(map(type, told)) != kinds:
        raise TypeError
    if any(isinstance(it, int) and abs(it) > _MOST for it in told):
        raise ValueError
    return tuple(shapes.plain(it) if isinstance(it, str) else it for it in told)


def _told(it: Partner) -> contract_pb2.Supplier:
    terms = it.contract
    return contract_pb2.Supplier(
        name=it.name,
        display_name=it.display_name,
        contract_version=terms.version if terms else 0,
        share_permyriad=terms.share_permyriad if terms else 0,
        holdback_permyriad=terms.holdback_permyriad if terms else 0,
        holdback_days=terms.holdback_days if terms else 0,
        nodes=[f"nodes/{node}" for node in it.nodes],
        payable_nano=it.payable_nano,
        holdback_nano=it.holdback_nano,
        currency=CURRENCY,
        create_time=shapes.moment(it.recorded_ms),
    )
