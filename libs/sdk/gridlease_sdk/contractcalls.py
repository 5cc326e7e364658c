"""What a client does with suppliers, commitments, tariffs, other currencies and footprints."""

from __future__ import annotations

from gridlease.gateway.v1 import contract_pb2 as pb
from gridlease.type.v1 import contract_pb2, money_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class ContractCalls:
    """The part of ``Client`` about partners and about what is bought besides run time."""

    _on: Connection
    _ids: RandomIds

    async def create_supplier(
        self, supplier_id: str, *, display_name: str = ""
    ) -> contract_pb2.Supplier:
        """Name a partner. Operators."""
        request = pb.CreateSupplierRequest(supplier_id=supplier_id, display_name=display_name)
        ask = self._on.suppliers.CreateSupplier
        return (await self._on.ask(ask, request, pb.CreateSupplierResponse)).supplier

    async def list_suppliers(self) -> list[contract_pb2.Supplier]:
        """Partners, with their terms and what they are owed. Operators."""
        ask = self._on.suppliers.ListSuppliers
        answer = await self._on.ask(ask, pb.ListSuppliersRequest(), pb.ListSuppliersResponse)
        return list(answer.suppliers)

    async def create_contract(
        self,
        supplier: str,
        share_permyriad: int,
        *,
        holdback_permyriad: int = 0,
        holdback_days: int = 0,
        request_id: str = "",
    ) -> contract_pb2.Supplier:
        """New terms, for leases from now on. Operators."""
        request = pb.CreateContractRequest(
            supplier=supplier,
            share_permyriad=share_permyriad,
            holdback_permyriad=holdback_permyriad,
            holdback_days=holdback_days,
            request_id=request_id or self._ids.new("rq"),
        )
        ask = self._on.suppliers.CreateContract
        return (await self._on.ask(ask, request, pb.CreateContractResponse)).supplier

    async def assign_node(
        self, node: str, supplier: str, *, request_id: str = ""
    ) -> pb.AssignNodeResponse:
        """Say whose a node is; no supplier = the platform's. Operators."""
        request = pb.AssignNodeRequest(
            node=node, supplier=supplier, request_id=request_id or self._ids.new("rq")
        )
        return await self._on.ask(self._on.suppliers.AssignNode, request, pb.AssignNodeResponse)

    async def render_statement(
        self,
        supplier: str,
        *,
        begin_ms: int = 0,
        end_ms: int = 0,
        file_format: str = "text",
        page_size: int = 0,
        page_token: str = "",
    ) -> pb.RenderStatementResponse:
        """A partner's statement as text, json or csv. Operators."""
        request = pb.RenderStatementRequest(
            supplier=supplier, format=file_format, page_size=page_size, page_token=page_token
        )
        if begin_ms:
            request.begin_time.FromMilliseconds(begin_ms)
        if end_ms:
            request.end_time.FromMilliseconds(end_ms)
        ask = self._on.suppliers.RenderStatement
        return await self._on.ask(ask, request, pb.RenderStatementResponse)

    async def create_payout(
        self, supplier: str, amount_nano: int = 0, *, note: str = "", request_id: str = ""
    ) -> pb.CreatePayoutResponse:
        """Pay a partner; no amount = all that is owed. Operators."""
        request = pb.CreatePayoutRequest(
            supplier=supplier,
            amount_nano=amount_nano,
            note=note,
            request_id=request_id or self._ids.new("rq"),
        )
        return await self._on.ask(self._on.suppliers.CreatePayout, request, pb.CreatePayoutResponse)

    async def create_commitment(
        self,
        chip: str,
        quantity_milli: int,
        begin_ms: int,
        end_ms: int,
        *,
        site: str = "",
        request_id: str = "",
    ) -> contract_pb2.Commitment:
        """Buy capacity ahead, at the reserved price in force."""
        request = pb.CreateCommitmentRequest(
            chip=chip,
            site=site,
            quantity_milli=quantity_milli,
            request_id=request_id or self._ids.new("rq"),
        )
        request.begin_time.FromMilliseconds(begin_ms)
        request.end_time.FromMilliseconds(end_ms)
        ask = self._on.contracts.CreateCommitment
        return (await self._on.ask(ask, request, pb.CreateCommitmentResponse)).commitment

    async def list_commitments(self) -> list[contract_pb2.Commitment]:
        """What was bought ahead, and what of it was used."""
        ask = self._on.contracts.ListCommitments
        answer = await self._on.ask(ask, pb.ListCommitmentsRequest(), pb.ListCommitmentsResponse)
        return list(answer.commitments)

    async def create_tariff(
        self, tariff: contract_pb2.Tariff, *, request_id: str = ""
    ) -> contract_pb2.Tariff:
        """A price of egress, storage or energy from now on. Operators."""
        request = pb.CreateTariffRequest(
            tariff=tariff, request_id=request_id or self._ids.new("rq")
        )
        ask = self._on.contracts.CreateTariff
        return (await self._on.ask(ask, request, pb.CreateTariffResponse)).tariff

    async def list_tariffs(self) -> list[contract_pb2.Tariff]:
        """Prices of egress, storage and energy."""
        ask = self._on.contracts.ListTariffs
        answer = await self._on.ask(ask, pb.ListTariffsRequest(), pb.ListTariffsResponse)
        return list(answer.tariffs)

    async def create_exchange(
        self,
        tenant: str,
        amount_nano: int,
        currency: str,
        rate: tuple[int, int],
        *,
        note: str = "",
        request_id: str = "",
    ) -> tuple[int, money_pb2.Balance]:
        """Pay credit in, in another currency; what was credited, and the balance. Operators."""
        request = pb.CreateExchangeRequest(
            tenant=tenant,
            amount_nano=amount_nano,
            currency=currency,
            rate_numerator=rate[0],
            rate_denominator=rate[1],
            note=note,
            request_id=request_id or self._ids.new("rq"),
        )
        ask = self._on.contracts.CreateExchange
        answer = await self._on.ask(ask, request, pb.CreateExchangeResponse)
        return answer.credited_nano, answer.balance

    async def list_footprints(
        self, *, job: str = "", limit: int = 100
    ) -> list[contract_pb2.Footprint]:
        """Energy and carbon of leases, newest first."""
        request = pb.ListFootprintsRequest(job=job, page_size=limit)
        ask = self._on.contracts.ListFootprints
        answer = await self._on.ask(ask, request, pb.ListFootprintsResponse)
        return list(answer.footprints)

    async def create_embodied(
        self, figure: contract_pb2.Embodied, *, request_id: str = ""
    ) -> contract_pb2.Embodied:
        """What making a device emitted. Operators."""
        request = pb.CreateEmbodiedRequest(
            chip=figure.chip,
            carbon_g=figure.carbon_g,
            life_hours=figure.life_hours,
            uncertainty_permille=figure.uncertainty_permille,
            source=figure.source,
            request_id=request_id or self._ids.new("rq"),
        )
        ask = self._on.contracts.CreateEmbodied
        return (await self._on.ask(ask, request, pb.CreateEmbodiedResponse)).embodied
