"""What a context answers for which nothing is possible: neither an HTTP nor a TCP stream, nor a plugin."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.context import Context
from tests.abi.fakes import answer


def test_a_root_context():
    root = Context(1)
    assert root.root is root
    assert root.maps == [None] * 8
    assert root.buffers == [None] * 10
    assert (root.name, root.status, root.read_only) == ("", (0, b""), False)


def test_a_stream_context():
    root = Context(1)
    stream = Context(2, root)
    assert stream.root is root
    assert stream.maps == [None] * 4
    assert stream.buffers == [None] * 10


def test_contexts_share_nothing():
    one, other = Context(1), Context(2)
    one.maps[0] = one.buffers[0] = []
    assert (other.maps[0], other.buffers[0]) == (None, None)


ANSWERS = [
    # method, arguments, answer: a status in a list is a refusal
    ("add_trailers", (1,), None),
    ("writable_size", (0,), 0),
    ("send_local_response", (200, b"", b"", [], None), None),
    ("continue_stream", (0,), None),
    ("continue_stream", (1,), None),
    ("continue_stream", (2,), None),
    ("continue_stream", (3,), [12]),
    ("close_stream", (0,), None),
    ("clear_route_cache", (), None),
    ("inject_response_body", (b"", True), [2]),
    ("override_upstream_host", (b"",), [2]),
    ("set_property", (("a",), b""), [1]),
    ("done", (), [1]),
    ("set_tick_period", (100,), None),
]


@pytest.mark.parametrize(("method", "args", "expected"), ANSWERS, ids=str)
def test_answer(method, args, expected):
    assert answer(getattr(Context(1), method)(*args)) == expected


def test_it_has_no_properties():
    with pytest.raises(LookupError):
        Context(1).get_property(("plugin_name",))


REASONS = [
    (lambda context: context.continue_stream(3), "an upstream connection cannot be continued"),
    (lambda context: context.inject_response_body(b"", False), "context 7 is not an HTTP stream"),
    (lambda context: context.override_upstream_host(b""), "context 7 is not an HTTP stream"),
    (lambda context: context.set_property(("a",), b""), "context 7 is not a stream: it has no properties"),
    (lambda context: context.done(), "on_done of context 7 is not pending"),
]


@pytest.mark.parametrize(("call", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_reason(call, reason):
    assert call(Context(7)).reason == reason


CALLOUTS = [
    ("register_queue", 1), ("http_call", 5), ("grpc_call", 6), ("grpc_stream", 4), ("grpc_send", 3), ("grpc_close", 1),
    ("grpc_cancel", 1), ("redis_init", 5), ("redis_call", 2),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments"), CALLOUTS, ids=[method for method, _ in CALLOUTS])
def test_only_a_plugin_makes_callouts_and_has_queues(method, arguments):
    refusal = getattr(Context(1), method)(*[None] * arguments)
    assert (refusal.status, refusal.reason) == (2, "context 1 is not a plugin's root context")
