"""Nodes, what they have and what is free, on the wire."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from gridlease.scheduler.v1 import fleet_pb2 as scheduler_fleet_pb2
from gridlease.type.v1 import fleet_pb2

from gridlease_scheduler.domain.stock import Stock
from gridlease_scheduler.ports import DeviceRow, InventoryReport, NodeDetail


def inventory(message: fleet_pb2.NodeInventory) -> InventoryReport:
    """What a node says that it has."""
    facts_only = fleet_pb2.NodeInventory()
    facts_only.CopyFrom(message)
    del facts_only.devices[:]
    facts: dict[str, Any] = json_format.MessageToDict(facts_only)
    return InventoryReport(
        cpu_milli=max(0, message.cpu_milli),
        memory_bytes=max(0, message.memory_bytes),
        disk_bytes=max(0, message.disk_bytes),
        emulated=message.emulated,
        facts=facts,
        devices=tuple(
            DeviceRow(
                device_id=x.id,
                chip=x.chip,
                vendor=x.vendor,
                memory_bytes=x.memory_bytes,
                emulated=x.emulated,
                clean=x.state == fleet_pb2.DEVICE_STATE_CLEAN,
                island=x.island,
                ailment=x.ailment,
                facts=_told_of(x),
            )
            for x in message.devices
        ),
    )


def _told_of(device: fleet_pb2.Device) -> dict[str, Any]:
    """What a device tells beside what places are chosen by."""
    told = fleet_pb2.Device(part_of=device.part_of)
    if device.HasField("certification"):
        told.certification.CopyFrom(device.certification)
    found: dict[str, Any] = json_format.MessageToDict(told)
    return found


def node(value: NodeDetail, lost_after_ms: int) -> fleet_pb2.Node:
    """A node on the wire. Silent for ``lost_after_ms`` it counts as lost."""
    row = value.row
    state = row.state
    if row.state == "DISCONNECTED" and row.silent_ms >= lost_after_ms:
        state = "LOST"
    if row.state == "READY" and (row.cordoned or row.ailment):
        state = "DRAINING" if row.draining else "CORDONED"
    message = fleet_pb2.Node(
        name=f"nodes/{row.node_id}",
        site=f"sites/{row.site}",
        state=fleet_pb2.NodeState.Value(f"NODE_STATE_{state}"),
        generation=row.generation,
    )
    json_format.ParseDict(row.inventory or {}, message.inventory, ignore_unknown_fields=True)
    for device in value.devices:
        clean = fleet_pb2.DEVICE_STATE_CLEAN if device.clean else fleet_pb2.DEVICE_STATE_DIRTY
        shown = message.inventory.devices.add(
            id=device.device_id,
            chip=device.chip,
            vendor=device.vendor,
            memory_bytes=device.memory_bytes,
            state=clean,
            emulated=device.emulated,
            lease=device.lease_id,
            island=device.island,
            ailment=device.ailment,
        )
        json_format.ParseDict(device.facts, shown, ignore_unknown_fields=True)
    message.rack = row.rack or message.inventory.rack
    message.rail = row.rail or message.inventory.rail
    message.cordon_note = row.cordon_note or row.ailment
    if row.cordoned_until is not None:
        message.cordon_end_time.FromDatetime(row.cordoned_until)
    message.promised_mbps = value.promised_mbps
    message.allocated.cpu_milli = value.used_cpu_milli
    message.allocated.memory_bytes = value.used_memory_bytes
    message.allocated.disk_bytes = value.used_disk_bytes
    message.allocated.device_ids.extend(x.device_id for x in value.devices if x.lease_id)
    message.create_time.FromDatetime(row.created_at)
    if row.seen_at is not None:
        message.seen_time.FromDatetime(row.seen_at)
    return message


def offer(value: Stock) -> fleet_pb2.Offer:
    """Stock on the wire: an offer without its price."""
    return fleet_pb2.Offer(
        chip=value.chip,
        site=f"sites/{value.site}",
        total_milli=value.total_milli,
        free_milli=value.free_milli,
        memory_bytes=value.memory_bytes,
        emulated=value.emulated,
    )


def listed(
    details: list[NodeDetail], limit: int, lost_after_ms: int
) -> scheduler_fleet_pb2.ListNodesResponse:
    """A page of nodes, and where the next begins."""
    token = details[-1].row.node_id if len(details) == limit else ""
    return scheduler_fleet_pb2.ListNodesResponse(
        nodes=[node(each, lost_after_ms) for each in details], next_page_token=token
    )
