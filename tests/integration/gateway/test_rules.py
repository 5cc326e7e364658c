"""Negative cases made from the descriptors: no method and no field is left unguarded."""

import grpc
from buf.validate import validate_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2, status_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_gateway.domain.keys import Role
from gridlease_gateway.methods import RULES, public_methods
from gridlease_mesh.status import DETAILS_KEY, fault_from_error

TOO_LONG = "x" * 70_000
UNDEFINED = 9_999
INTS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


async def answer_to(world, name, request, key):
    """The error of one call (None: it was answered)."""
    service, _, method = name.partition(".")
    described = public_methods()[name]
    call = getattr(world.stub(service, key), method)
    try:
        if described.client_streaming and described.server_streaming:
            await call(iter([request])).read()
        elif described.client_streaming:
            await call(iter([request]))
        elif described.server_streaming:
            await call(request).read()
        else:
            await call(request)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def request_of(name):
    return message_factory.GetMessageClass(public_methods()[name].input_type)()


async def test_no_method_answers_without_a_key(world):
    for name, rule in RULES.items():
        if rule.role is Role.ANYONE:
            continue
        for key in (None, "gl_k-none_" + "0" * 64, "nonsense"):
            error = await answer_to(world, name, request_of(name), key)
            assert error is not None, name
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, (name, key)
            fault = fault_from_error(error)
            assert fault.reason in ("KEY_MISSING", "KEY_UNKNOWN", "KEY_MALFORMED"), name
            assert fault.remedy


async def test_no_tenant_does_what_operators_do(world):
    for name, rule in RULES.items():
        if rule.role is not Role.OPERATOR:
            continue
        error = await answer_to(world, name, request_of(name), "tenant_key")
        assert error is not None, name
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, name


async def test_a_method_that_is_not_in_the_table_is_not_there(world):
    for path in (
        "/gridlease.gateway.v1.JobService/Nothing",
        "/gridlease.scheduler.v1.JobService/GetJob",
    ):
        call = world.channel.unary_unary(path)
        try:
            await call(b"", metadata=(("authorization", f"Bearer {world.keys['operator_key']}"),))
            error = None
        except grpc.aio.AioRpcError as caught:
            error = caught
        assert error is not None
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_request_are_refused(world):
    call = world.channel.unary_unary("/gridlease.gateway.v1.JobService/GetJob")
    try:
        await call(b"\xff\xff", metadata=(("authorization", f"Bearer {world.keys['tenant_key']}"),))
        fault = None
    except grpc.aio.AioRpcError as caught:
        fault = fault_from_error(caught)
    assert fault is not None
    assert fault.reason == "MALFORMED_REQUEST"


def bad_requests(name):
    """(path, request) for each field of a method's request set to what its rules forbid."""
    descriptor = public_methods()[name].input_type

    def walk(message_type, path, reach):
        for field in message_type.fields:
            where = f"{path}{field.name}"
            for value in bad_values(field):
                request = request_of(name)
                put(reach(request), field, value)
                yield where, request
            if field.message_type and not field.is_repeated and is_ours(field):
                yield from walk(
                    field.message_type,
                    where + ".",
                    lambda root, it=field.name: getattr(reach(root), it),
                )

    yield from walk(descriptor, "", lambda root: root)


def is_ours(field):
    return field.message_type.file.package.startswith("gridlease.")


def is_map(field):
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def bad_values(field):
    if is_map(field) and field.message_type.fields_by_name["value"].cpp_type in INTS:
        return [{"ok": -1}, {"": 1}]
    if is_map(field):
        return [{"ok": TOO_LONG}, {"not a name": "x"}]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return [bytes(300_000)]
        return [TOO_LONG] + ([""] if least(field) else [])
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return [UNDEFINED, -1]
    if field.cpp_type in INTS:
        return [-1, -(2**31)]
    return []


def least(field):
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return rules.string.min_len > 0 and not field.is_repeated


def put(message, field, value):
    if is_map(field):
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        message.SetInParent()
        setattr(message, field.name, value)


def named_fields(error):
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            for detail in status_pb2.Status.FromString(value).details:
                bad = error_details_pb2.BadRequest()
                if detail.Unpack(bad):
                    return [it.field for it in bad.field_violations]
    return []


async def test_each_field_that_breaks_its_rule_is_named(world):
    count, holes = 0, []
    for name, rule in RULES.items():
        key = "operator_key" if rule.role is Role.OPERATOR else "tenant_key"
        for path, request in bad_requests(name):
            count += 1
            error = await answer_to(world, name, request, key)
            named = named_fields(error) if error else []
            if error is None or error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                holes.append(f"{name} {path}: {error.code() if error else 'answered'}")
            elif not any(it.split("[")[0] == path for it in named):
                holes.append(f"{name} {path}: named {named}")
    assert count > 150
    assert not holes, "\n".join(holes)


async def test_a_message_over_the_limit_is_refused(world):
    request = pb.CreateJobRequest()
    request.spec.resources.SetInParent()
    request.spec.commands.extend(["x" * 60_000] * 90)  # 5.4 MB
    error = await answer_to(world, "JobService.CreateJob", request, "tenant_key")
    assert error is not None
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not world.scheduler.submits


async def test_a_zero_character_is_refused_by_name(world):
    request = pb.CreateJobRequest()
    request.spec.resources.SetInParent()
    request.spec.commands.append("echo a\0b")
    error = await answer_to(world, "JobService.CreateJob", request, "tenant_key")
    assert error is not None
    fault = fault_from_error(error)
    assert (fault.reason, fault.field) == ("ZERO_CHARACTER", "spec.commands")
