"""What almost every request does (``runtime/fast_path.py``), in C and in Python: the same comes out, and nothing stays."""

from __future__ import annotations

import gc
import inspect
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxywasm_host import ENVOY, Host, Services
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.runtime import fast_path, outbox
from proxywasm_host.runtime.effects import RequestHeaders, ResponseHeaders
from proxywasm_host.runtime.fast_path import HEADERS_MAP, REQUEST, RESPONSE
from tests.support import REQUEST as ASKED
from tests.support import RESPONSE as ANSWER
from tests.support import code

NAMES = [b":method", b":path", b":authority", b":status", b":odd", b"accept", b"cookie", b"x-a", b"x-b", b""]
VALUES = [b"", b"1", b"200", b"2x", b"GET", b"/", b"a, b", "\u00b2".encode()]
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=40)
FORMS = st.sampled_from([list, tuple, lambda pairs: list(map(list, pairs)), iter])


@pytest.fixture(scope="module", params=[True, False], ids=["inline", "as they come"])
def joining(request):
    from dataclasses import replace

    with Host("wasmtime", profile=replace(ENVOY, inline_headers=request.param)) as host:
        yield host


@given(headers=HEADERS, form=FORMS, end=st.booleans(), direction=st.sampled_from([REQUEST, RESPONSE]))
@settings(max_examples=400)
def test_headers_go_through_as_the_python_code_says(joining, headers, form, end, direction):
    """`HttpStream._checked` and `HttpStream._for_wire` say what is to come out; C takes its own way where that is plain."""
    other = joining.http_stream([])
    expected = other._checked(form(headers), HEADERS_MAP[direction])
    fit = other._for_wire(direction, expected)
    other.close()
    with joining.http_stream([]) as stream:
        if direction == RESPONSE:
            stream.request_headers(ASKED, True)
            came = stream.response_headers(form(headers), end)
            kind = ResponseHeaders
        else:
            came = stream.request_headers(form(headers), end)
            kind = RequestHeaders
        if fit is None:
            assert stream.local is not None
        else:
            assert came == [kind(fit, end, stream)]


@pytest.mark.parametrize("headers", [[b"ab"], [(b"a", "b")], [("a", b"b")], [(b"a", b"b"), None], 5, None])
def test_what_is_no_header_is_refused(joining, headers):
    with joining.http_stream([]) as stream, pytest.raises((TypeError, IndexError)):
        stream.request_headers(headers)


def test_headers_come_once(joining):
    with joining.http_stream([]) as stream:
        with pytest.raises(RuntimeError, match="the request's headers must be given first"):
            stream.response_headers(ANSWER)
        stream.request_headers(ASKED)
        with pytest.raises(RuntimeError, match="the request's headers were given before"):
            stream.request_headers(ASKED)
        stream.response_headers(ANSWER)
        with pytest.raises(RuntimeError, match="the response's headers were given before"):
            stream.response_headers(ANSWER)


def test_a_closed_stream_takes_no_headers(joining):
    stream = joining.http_stream([])
    stream.close()
    with pytest.raises(RuntimeError, match="the stream is closed"):
        stream.request_headers(ASKED)
    assert stream.response_headers(ANSWER) == []


def test_c_is_in_use_where_it_was_built():
    assert (fast_path.HttpContextBase is fast_path.PythonHttpContextBase) is (NATIVE is None)
    assert (fast_path.FilterChainBase is fast_path.PythonFilterChainBase) is (NATIVE is None)
    assert (fast_path.HttpStreamBase is fast_path.PythonHttpStreamBase) is (NATIVE is None)
    assert (fast_path.PluginBase is fast_path.PythonPluginBase) is (NATIVE is None)
    assert (fast_path.HostBase is fast_path.PythonHostBase) is (NATIVE is None)
    assert (outbox.Outbox is outbox.PythonOutbox) is (NATIVE is None)


@pytest.mark.parametrize("make", [outbox.Outbox, outbox.PythonOutbox])
def test_an_outbox_gives_what_it_took_once(make):
    box = make()
    box.put(1)
    box.notify(2)
    box.put(3)
    assert box.drain() == [1, 3, 2]
    assert box.drain() == []
    box.notify(4)
    assert box.drain() == [4]


def test_requests_leave_nothing_behind(engine, log):
    """Also no cycles: what a stream held is freed when it goes, and not when the collector comes."""

    def some(times: int) -> int:
        for _ in range(times):
            with host.http_stream(plugins) as stream:
                stream.request_headers(ASKED, True)
                stream.response_headers(ANSWER, True)
        return sys.getallocatedblocks()

    with Host(engine, services=Services(log=log)) as host:
        plugins = [host.load_plugin(code("c/probe_0_2_1"), name=name, vm_id=name) for name in "ab"]
        log.lines.clear()
        some(50)
        gc.collect()
        gc.disable()
        try:
            before = some(10)
            assert some(300) - before < 300
        finally:
            gc.enable()
        assert all(len(plugin._vm.contexts) == 2 for plugin in plugins)


PUBLIC = [
    (fast_path.HostBase, fast_path.PythonHostBase, "http_stream"),
    (fast_path.HostBase, fast_path.PythonHostBase, "_emit"),
    (fast_path.HostBase, fast_path.PythonHostBase, "drain"),
    (fast_path.HttpStreamBase, fast_path.PythonHttpStreamBase, "request_headers"),
    (fast_path.HttpStreamBase, fast_path.PythonHttpStreamBase, "response_headers"),
    (fast_path.HttpStreamBase, fast_path.PythonHttpStreamBase, "close"),
]


@pytest.mark.parametrize(("used", "python", "name"), PUBLIC, ids=[name for _, _, name in PUBLIC])
def test_help_says_the_same(used, python, name):
    ours, theirs = getattr(used, name), getattr(python, name)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)

    def parameters(function):
        # a signature in C can only have defaults that are literals
        return [
            (p.name, ... if p.default is fast_path.HEADER_LIMITS else p.default)
            for p in inspect.signature(function).parameters.values()
        ]

    assert parameters(ours) == parameters(theirs)


def test_arguments_by_name(joining):
    properties = {"source.address": b"127.0.0.1"}
    stream = joining.http_stream(plugins=(), properties=properties, buffer_limit=5)
    assert (stream.properties, stream.buffer_limit) == (properties, 5)
    assert stream.request_headers(end_stream=True, headers=ASKED) == [RequestHeaders(ASKED, True, stream)]
    assert stream.response_headers(ANSWER, end_stream=True) == [ResponseHeaders(ANSWER, True, stream)]
    assert stream.details == "via_upstream"
    assert stream.close(details="downstream_remote_disconnect") == stream.close("not any more") == []
    assert stream.details == "downstream_remote_disconnect"
    with joining.http_stream([], properties=None) as stream:
        assert dict(stream.properties) == {}
        assert stream.buffer_limit == 1024 * 1024


@pytest.mark.parametrize(
    "call",
    [
        lambda host, _: host.http_stream(),
        lambda host, _: host.http_stream([], {}),
        lambda host, _: host.http_stream([], limit=5),
        lambda host, _: host.http_stream([], plugins=[]),
        lambda host, _: host.http_stream(5),
        lambda host, _: host.http_stream([5]),
        lambda _, stream: stream.request_headers(),
        lambda _, stream: stream.request_headers(ASKED, True, True),
        lambda _, stream: stream.request_headers(ASKED, headers=ASKED),
        lambda _, stream: stream.request_headers(ASKED, end=True),
        lambda _, stream: stream.response_headers(end_stream=True),
        lambda _, stream: stream.close("a", "b"),
        lambda _, stream: stream.close(reason="a"),
    ],
)
def test_wrong_arguments(joining, call):
    with joining.http_stream([]) as stream, pytest.raises((TypeError, AttributeError)):
        call(joining, stream)


def test_what_an_embedder_adds(joining):
    """Streams and hosts are objects like others: they take attributes, and can be made more of."""
    with joining.http_stream([]) as stream:
        stream.mine = 1
        assert stream.mine == vars(stream)["mine"] == 1


def test_many_filters(log):
    """More than the C extension has room for in place."""
    with Host("wasmtime", services=Services(log=log)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"))
        with host.http_stream([plugin] * 40) as stream:
            assert stream.request_headers(ASKED, True)[0].headers == ASKED
            assert stream.response_headers(ANSWER)[0].headers == ANSWER
            assert stream.response_body(b"body", True)[0].data == b"body"
            path = stream._chain(REQUEST)
            assert [path.was_given_end(index) for index in range(40)] == [True] * 40
            with pytest.raises(IndexError):
                path.was_given_end(40)
