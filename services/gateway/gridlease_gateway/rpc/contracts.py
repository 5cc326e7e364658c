"""SupplierService and ContractService: partners for operators, contracts of the key's tenant."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message
from gridlease.billing.v1 import contract_pb2 as inner
from gridlease.billing.v1 import supplier_pb2 as partner
from gridlease.gateway.v1 import contract_pb2 as pb
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore
from gridlease_gateway.rpc.jobs import get_job

A = TypeVar("A", bound=Message)


class _Passing:
    """Passes on to billing what is the same inside and outside."""

    def __init__(self, inside: Inside, access: AccessStore, ids: Ids) -> None:
        self._inside = inside
        self._access = access
        self._ids = ids
        self._partners: Any = inside.suppliers
        self._contracts: Any = inside.contracts

    async def _pass(
        self, call: Call, method: Any, request: Any, kind: type[A], answer: type[Message]
    ) -> Message:
        """``request`` as ``kind``, answered as ``answer``: both have the same fields."""
        again = kind.FromString(request.SerializeToString())
        return await self._ask(call, method, again, answer)

    async def _ask(self, call: Call, method: Any, again: Any, answer: type[Message]) -> Message:
        if "request_id" in again.DESCRIPTOR.fields_by_name and not again.request_id:
            again.request_id = self._ids.new("rq")
        name = answer.DESCRIPTOR.name
        told = getattr(inner, name, None) or getattr(partner, name)
        found = await self._inside.ask(method, again, call.left_s(), told)
        return answer.FromString(found.SerializeToString())


class Suppliers(_Passing):
    """The methods of SupplierService."""

    async def create_supplier(self, call: Call, request: pb.CreateSupplierRequest) -> Message:
        method, kind = self._partners.CreateSupplier, partner.CreateSupplierRequest
        return await self._pass(call, method, request, kind, pb.CreateSupplierResponse)

    async def list_suppliers(self, call: Call, request: pb.ListSuppliersRequest) -> Message:
        method, kind = self._partners.ListSuppliers, partner.ListSuppliersRequest
        return await self._pass(call, method, request, kind, pb.ListSuppliersResponse)

    async def create_contract(self, call: Call, request: pb.CreateContractRequest) -> Message:
        method, kind = self._partners.CreateContract, partner.CreateContractRequest
        return await self._pass(call, method, request, kind, pb.CreateContractResponse)

    async def assign_node(self, call: Call, request: pb.AssignNodeRequest) -> Message:
        method, kind = self._partners.AssignNode, partner.AssignNodeRequest
        return await self._pass(call, method, request, kind, pb.AssignNodeResponse)

    async def render_statement(self, call: Call, request: pb.RenderStatementRequest) -> Message:
        method, kind = self._partners.RenderStatement, partner.RenderStatementRequest
        return await self._pass(call, method, request, kind, pb.RenderStatementResponse)

    async def create_payout(self, call: Call, request: pb.CreatePayoutRequest) -> Message:
        method, kind = self._partners.CreatePayout, partner.CreatePayoutRequest
        return await self._pass(call, method, request, kind, pb.CreatePayoutResponse)


class Contracts(_Passing):
    """The methods of ContractService."""

    async def create_commitment(self, call: Call, request: pb.CreateCommitmentRequest) -> Message:
        again = inner.CreateCommitmentRequest(
            tenant=call.caller.own_tenant(),
            project=call.caller.own_project(),
            chip=request.chip,
            site=request.site,
            quantity_milli=request.quantity_milli,
            begin_time=request.begin_time,
            end_time=request.end_time,
            request_id=request.request_id,
        )
        method = self._contracts.CreateCommitment
        return await self._ask(call, method, again, pb.CreateCommitmentResponse)

    async def list_commitments(self, call: Call, _request: pb.ListCommitmentsRequest) -> Message:
        again = inner.ListCommitmentsRequest(tenant=call.caller.own_tenant())
        method = self._contracts.ListCommitments
        return await self._ask(call, method, again, pb.ListCommitmentsResponse)

    async def create_tariff(self, call: Call, request: pb.CreateTariffRequest) -> Message:
        method, kind = self._contracts.CreateTariff, inner.CreateTariffRequest
        return await self._pass(call, method, request, kind, pb.CreateTariffResponse)

    async def list_tariffs(self, call: Call, request: pb.ListTariffsRequest) -> Message:
        method, kind = self._contracts.ListTariffs, inner.ListTariffsRequest
        return await self._pass(call, method, request, kind, pb.ListTariffsResponse)

    async def create_exchange(self, call: Call, request: pb.CreateExchangeRequest) -> Message:
        tenant = names.id_of(request.tenant, "tenants")
        if tenant is None or not await self._access.has_tenant(tenant):
            raise names.no_tenant(request.tenant)
        method, kind = self._contracts.CreateExchange, inner.CreateExchangeRequest
        return await self._pass(call, method, request, kind, pb.CreateExchangeResponse)

    async def list_footprints(self, call: Call, request: pb.ListFootprintsRequest) -> Message:
        if request.job:
            await get_job(self._inside, call, request.job, "job")
        again = inner.ListFootprintsRequest(
            tenant=call.caller.own_tenant(), job=request.job, page_size=request.page_size
        )
        method = self._contracts.ListFootprints
        return await self._ask(call, method, again, pb.ListFootprintsResponse)

    async def create_embodied(self, call: Call, request: pb.CreateEmbodiedRequest) -> Message:
        method, kind = self._contracts.CreateEmbodied, inner.CreateEmbodiedRequest
        return await self._pass(call, method, request, kind, pb.CreateEmbodiedResponse)
