# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""ContractService: capacity bought ahead, tariffs, other currencies, energy and carbon."""

from __future__ import annotations

from typing import Any

from gridlease.billing.v1 import contract_pb2 as pb
from gridlease.billing.v1 import contract_pb2_grpc
from gridlease.type.v1 import contract_pb2 as types
from gridlease_kernel.faults import Invalid
from gridlease_kernel.ids import Ids

from gridlease_billing import commitments, exchange, footprints, tariffs
from gridlease_billing.contract_ports import Known, NewTariff
from gridlease_billing.domain.carbon import Embodied
from gridlease_billing.domain.meter_price import Entry
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.domain.tick import CATALOGUE
from gridlease_billing.ports import Books
from gridlease_billing.rpc import energy_shapes, shapes

_DEFAULT_PAGE = 100
_MOST_STEPS = 32


class Contracts(contract_pb2_grpc.ContractServiceServicer):
    """What is bought and priced besides run time."""

    def __init__(self, books: Books, ids: Ids) -> None:
        self._books = books
        self._ids = ids

    async def CreateCommitment(
        self, request: pb.CreateCommitmentRequest, context: Any
    ) -> pb.CreateCommitmentResponse:
        wish = commitments.Wish(
            shapes.resource(request.tenant, "tenants", "tenant"),
            shapes.plain(request.project),
            shapes.plain(request.chip),
            shapes.plain(request.site),
            request.quantity_milli,
            request.begin_time.ToMilliseconds(),
            request.end_time.ToMilliseconds(),
            shapes.plain(request.request_id),
        )
        made = await commitments.buy(self._books, self._ids, wish)
        return pb.CreateCommitmentResponse(commitment=_commitment(made))

    async def ListCommitments(
        self, request: pb.ListCommitmentsRequest, context: Any
    ) -> pb.ListCommitmentsResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        found = await commitments.list_commitments(self._books, tenant)
        return pb.ListCommitmentsResponse(commitments=[_commitment(it) for it in found])

    async def CreateTariff(
        self, request: pb.CreateTariffRequest, context: Any
    ) -> pb.CreateTariffResponse:
        made = await tariffs.create_tariff(
            self._books, _new_tariff(request.tariff, shapes.plain(request.request_id))
        )
        return pb.CreateTariffResponse(tariff=_tariff(made))

    async def ListTariffs(
        self, request: pb.ListTariffsRequest, context: Any
    ) -> pb.ListTariffsResponse:
        found = await tariffs.list_tariffs(self._books)
        return pb.ListTariffsResponse(tariffs=[_tariff(it) for it in found])

    async def CreateExchange(
        self, request: pb.CreateExchangeRequest, context: Any
    ) -> pb.CreateExchangeResponse:
        paid = exchange.Foreign(
            shapes.resource(request.tenant, "tenants", "tenant"),
            request.amount_nano,
            request.currency,
            request.rate_numerator,
            request.rate_denominator,
            shapes.plain(request.note),
            shapes.plain(request.request_id),
        )
        made, wallet = await exchange.pay_in_foreign(self._books, paid)
        return pb.CreateExchangeResponse(
            credited_nano=made.credited_nano, balance=shapes.balance(paid.tenant, wallet)
        )

    async def ListFootprints(
        self, request: pb.ListFootprintsRequest, context: Any
    ) -> pb.ListFootprintsResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        limit = request.page_size or _DEFAULT_PAGE
        found = await footprints.list_footprints(
            self._books, tenant, shapes.plain(request.job), limit
        )
        return pb.ListFootprintsResponse(footprints=[_footprint(it) for it in found])

    async def CreateEmbodied(
        self, request: pb.CreateEmbodiedRequest, context: Any
    ) -> pb.CreateEmbodiedResponse:
        figure = Embodied(
            request.carbon_g,
            request.life_hours,
            request.uncertainty_permille,
            shapes.plain(request.source),
        )
        chip, request_id = shapes.plain(request.chip), shapes.plain(request.request_id)
        await footprints.put_embodied(self._books, chip, figure, request_id)
        told = types.Embodied(
            chip=chip,
            carbon_g=figure.carbon_g,
            life_hours=figure.life_hours,
            uncertainty_permille=figure.uncertainty_permille,
            source=figure.source,
        )
        return pb.CreateEmbodiedResponse(embodied=told)


def _commitment(it: Known) -> types.Commitment:
    pot = it.bought.pot
    return types.Commitment(
        name=pot.id,
        tenant=pot.tenant,
        project=it.bought.project,
        chip=pot.chip,
        site=pot.site,
        quantity_milli=pot.quantity_milli,
        begin_time=shapes.moment(pot.starts_ms),
        end_time=shapes.moment(pot.ends_ms),
        rate_nano_per_hour=pot.rate_nano_per_hour,
        currency=CURRENCY,
        hour_count=it.hours,
        used_permille=it.used_milli_ns * 1_000 // it.size_milli_ns if it.size_milli_ns else 0,
        fee_nano=it.fee_nano,
        cover_nano=it.cover_nano,
        create_time=shapes.moment(it.recorded_ms),
    )


def _tariff(it: Entry) -> types.Tariff:
    return types.Tariff(
        version=it.version,
        meter=it.meter,
        site=it.site,
        steps=[
            types.TariffStep(above=step.above, price_nano=step.price_nano)
            for step in it.tariff.steps
        ],
        per=it.tariff.per,
        minimum_nano=it.tariff.minimum_nano,
        pass_through=it.pass_through,
        currency=CURRENCY,
        effective_time=shapes.moment(it.effective_ms),
        create_time=shapes.moment(it.recorded_ms),
    )


def _new_tariff(told: types.Tariff, request_id: str) -> NewTariff:
    """An entry, if it is a tariff at all.

    Raises:
        Invalid: BAD_TARIFF.
    """
    steps = [(it.above, it.price_nano) for it in told.steps] or [(0, 0)]
    above = [it[0] for it in steps]
    good = (
        told.meter in CATALOGUE[1:]
        and above[0] == 0
        and above == sorted(set(above))
        and len(steps) <= _MOST_STEPS
        and min(price for _, price in steps) >= 0
        and told.per >= 0
        and told.minimum_nano >= 0
        and (not told.pass_through or told.meter == "energy")
    )
    if not good:
        raise Invalid(
            "That is no tariff.",
            reason="BAD_TARIFF",
            field="tariff",
            remedy="Steps rise from 0, no price is negative; meters are egress, storage, energy.",
        )
    named = told.HasField("effective_time")
    return NewTariff(
        told.meter,
        shapes.plain(told.site),
        Tariff(tuple(Step(*it) for it in steps), told.per or 1, told.minimum_nano),
        told.pass_through,
        told.effective_time.ToMilliseconds() if named else None,
        request_id,
    )


def _footprint(it: footprints.Trace) -> types.Footprint:
    drew, found = it.drew, it.footprint
    made = drew.embodied
    return types.Footprint(
        lease=drew.of.lease,
        job=drew.of.job,
        chip=drew.of.chip,
        site=drew.of.site,
        device_mj=found.device_mj,
        site_mj=found.site_mj,
        operational_mg=found.operational_mg or 0,
        known_carbon=found.operational_mg is not None,
        embodied_mg=found.embodied_mg or 0,
        embodied_uncertainty_permille=made.uncertainty_permille if made else 0,
        embodied_source=made.source if made else "",
        energy_nano=found.energy_nano or 0,
        pue_milli=drew.power.pue_milli if drew.power else 0,
        use=energy_shapes.traced(it),
    )
