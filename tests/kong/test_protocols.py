"""Both protocols of plugin servers, byte by byte; and ProtoBuf:1 with a server that speaks it."""

from __future__ import annotations

import json
import sys

import httpx2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import fallback

from benchmarks.rust import program
from proxywasm_host.kong.asgi import KongMiddleware
from proxywasm_host.kong.servers.events import Called, Done, PluginServerError, Refused, Started
from proxywasm_host.kong.servers.messagepack import MOST, MOST_NOTICES, MOST_VALUES, MessagePack
from proxywasm_host.kong.servers.pdk import FUNCTIONS
from proxywasm_host.kong.servers.protobuf import (
    RESULTS,
    TYPES,
    ProtoBuf,
    framed,
    list_in,
    list_out,
    struct_in,
    struct_out,
    value_in,
    value_out,
)
from proxywasm_host.protobuf import field
from tests.kong.test_servers import application

TEXT = st.text(st.characters(max_codepoint=255), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 50), 1 << 50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_of_protobuf_comes_back_as_it_went(value):
    assert value_in(value_out(value)) == value
    assert list_in(list_out([value, value])) == [value, value]
    assert struct_in(struct_out({"a": value})) == {"a": value}


def fed(protocol, data):
    """The events of what comes in one byte at a time."""
    return [event for event in (protocol.feed(data[at : at + 1]) for at in range(len(data))) if event is not None]


def test_an_event_of_protobuf_byte_by_byte():
    protocol = ProtoBuf()
    assert protocol.start_instance("p", "{}") == framed(b"\x08\x01\x8a\x02\x07\x0a\x01p\x12\x02{}")
    assert fed(protocol, framed(field(1, 1) + field(33, field(2, 7)))) == [Started(7)]
    assert protocol.handle_event(7, "access") == framed(b"\x08\x02\xa2\x02\x0a\x08\x07\x12\x06access")
    [event] = fed(protocol, framed(b"kong.request.get_header") + framed(field(1, "host")))
    assert event == Called("kong.request.get_header", ("host",))
    assert protocol.answer(event.method, "example.com") == framed(field(1, "example.com"))
    [event] = fed(
        protocol,
        framed(b"kong.response.exit") + framed(field(1, 403) + field(2, b"no") + field(3, struct_out({"x": "y"}))),
    )
    assert event == Called("kong.response.exit", (403, "no", {"x": "y"}))
    protocol.answer(event.method, None)
    assert fed(protocol, framed(b"") + framed(field(1, 2))) == [Done()]


def test_an_event_of_messagepack_byte_by_byte():
    protocol = MessagePack()
    assert msgpack.unpackb(protocol.start_instance("p", "{}")) == [
        0,
        1,
        "plugin.StartInstance",
        [{"Name": "p", "Config": "{}"}],
    ]
    assert fed(protocol, msgpack.packb([2, "serverPid", 12]) + msgpack.packb([1, 1, None, {"Id": 3}])) == [Started(3)]
    assert msgpack.unpackb(protocol.handle_event(3, "access"))[2:] == [
        "plugin.HandleEvent",
        [{"InstanceId": 3, "EventName": "access"}],
    ]
    called = {"EventId": 9, "Data": {"Method": "kong.request.get_headers", "Args": [10]}}
    assert fed(protocol, msgpack.packb([1, 2, None, called])) == [Called("kong.request.get_headers", (10,))]
    answer = protocol.answer("kong.request.get_headers", {"a": ["1", "\xff"]})
    assert msgpack.unpackb(answer)[2:] == ["plugin.StepMultiMap", [{"EventId": 9, "Data": {"a": ["1", b"\xff"]}}]]
    assert fed(protocol, msgpack.packb([1, 3, None, {"EventId": 9, "Data": "ret"}])) == [Done()]
    protocol.handle_event(4, "access")
    assert fed(protocol, msgpack.packb([1, 4, "no plugin instance #4", None])) == [Refused("no plugin instance #4")]


def nested(depth):
    """A list of protobuf in a list in a list …"""
    value = b""
    for _ in range(depth):
        value = field(1, field(6, value))
    return value


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        (MessagePack, b"\xc1"),
        (MessagePack, msgpack.packb([1, 99, None, {}])),
        (MessagePack, msgpack.packb({"a": 1})),
        (MessagePack, msgpack.packb([1, 1, None, {"EventId": 1}])),
        (MessagePack, msgpack.packb([])),
        (MessagePack, b"\x94\x01\x01" + b"\x91" * 600 + b"\x01\xc0"),
        (ProtoBuf, b"\xff\xff\xff\xff"),
        (ProtoBuf, framed(b"kong.nothing") + framed(b"")),
        (ProtoBuf, framed(b"kong.log.err") + framed(b"\x0a\xff")),
        (ProtoBuf, framed(b"kong.log.err") + framed(nested(1000))),
    ],
)
def test_what_is_no_message_is_an_error(protocol, data):
    connection = protocol()
    connection.handle_event(1, "access")
    with pytest.raises(PluginServerError):
        fed(connection, data)


def test_a_number_of_an_instance_that_is_none():
    protocol = MessagePack()
    protocol.start_instance("p", "{}")
    with pytest.raises(PluginServerError):
        protocol.feed(msgpack.packb([1, 1, None, {"Id": float("inf")}]))


def test_notices_without_end():
    notice, answer = msgpack.packb([2, "log", ["x"]]), msgpack.packb([1, 1, None, {"Id": 5}])
    protocol = MessagePack()
    protocol.start_instance("p", "{}")
    assert protocol.feed(notice * MOST_NOTICES + answer) == Started(5)
    assert protocol.feed(notice * MOST_NOTICES) is None
    with pytest.raises(PluginServerError, match="notices"):
        protocol.feed(notice)


@pytest.mark.parametrize(
    "values", [[0] * (MOST_VALUES + 1), [[0] * 1000] * (MOST_VALUES // 1000 + 1)], ids=["one list", "many"]
)
def test_more_values_than_a_message_may_have(values):
    protocol = MessagePack()
    protocol.handle_event(1, "access")
    with pytest.raises(PluginServerError):
        protocol.feed(msgpack.packb([1, 1, None, {"EventId": 1, "Data": {"Method": "a", "Args": values}}]))


@pytest.mark.parametrize("unpacker", [msgpack.Unpacker, fallback.Unpacker])
def test_values_of_a_message_that_comes_in_parts_are_counted_once(monkeypatch, unpacker):
    monkeypatch.setattr(msgpack, "Unpacker", unpacker)
    protocol = MessagePack()
    protocol.handle_event(1, "access")
    args = [[0] * 1000] * (MOST_VALUES // 2000)
    data = msgpack.packb([1, 1, None, {"EventId": 1, "Data": {"Method": "a", "Args": args}}])
    parts = [data[at : at + len(data) // 4 + 1] for at in range(0, len(data), len(data) // 4 + 1)]
    assert [protocol.feed(part) for part in parts] == [None, None, None, Called("a", tuple(args))]


def test_messages_do_not_add_up():
    protocol = MessagePack()
    args = [0] * (MOST_VALUES // 2)
    for number in (1, 2, 3):
        protocol.handle_event(1, "access")
        event = protocol.feed(msgpack.packb([1, number, None, {"EventId": 1, "Data": {"Method": "a", "Args": args}}]))
        assert event == Called("a", tuple(args))


def test_a_message_that_is_too_large():
    with pytest.raises(PluginServerError):
        MessagePack().feed(bytes(MOST + 1))


def test_each_function_that_the_protocol_has_is_there():
    assert [name for name in TYPES if f"kong.{name}" not in FUNCTIONS] == []
    assert {result for _, result in TYPES.values()} <= set(RESULTS)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_speaks_protobuf(tmp_path, anyio_backend):
    info = {
        "Name": "header_filter",
        "Priority": 1,
        "Version": "1",
        "Phases": ["access", "response"],
        "Schema": {"name": "header_filter", "fields": [{"config": {"type": "record", "fields": []}}]},
    }
    said = {"Protocol": "ProtoBuf:1", "SocketPath": f"{tmp_path}/socket", "Plugins": [info]}
    (tmp_path / "query.py").write_text(f"print({json.dumps(said)!r})")
    (tmp_path / "kong.yaml").write_text(
        '_format_version: "3.0"\nservices:\n- {name: a, url: http://up.example, plugins: [{name: header_filter}], routes: [{paths: [/]}]}\n'
    )
    environment = {
        "KONG_PLUGINSERVER_NAMES": "rust",
        "KONG_PLUGINSERVER_RUST_START_CMD": f"{program('rust_plugin_server')} {tmp_path}/socket",
        "KONG_PLUGINSERVER_RUST_QUERY_CMD": f"{sys.executable} {tmp_path}/query.py",
    }
    gateway = KongMiddleware(application, tmp_path / "kong.yaml", environment=environment)
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(gateway), base_url="http://example.com") as client:
            for _ in range(3):
                answer = await client.get("/", headers={"x-remove-me": "1"})
                assert answer.json()["headers"]["x-wasm"] == "hello"
                assert "x-remove-me" not in answer.json()["headers"]
                assert (answer.headers["x-wasm"], answer.headers["server"]) == ("hello", "hello")
        await gateway._stop()
    finally:
        gateway.close()
