"""Limits on what clients and upstreams send come before those on what filters add, and neither uses up the other."""

from __future__ import annotations

import pytest

from proxywasm_host import HeaderLimits
from tests.support import REQUEST, RESPONSE, code

MANY = [(b"x-%d" % number, b"v") for number in range(100)]
LARGE = [(b"x", b"v" * 60 * 1024)]
LEFT = 60 * 1024 - sum(len(name) + len(value) for name, value in REQUEST) - len(b"x")
"""Bytes that the value of one more header may have."""
TRAILERS = [(b"t-%d" % number, b"v") for number in range(101)]


def told(effects) -> list[tuple]:
    """Kinds, statuses and bodies."""
    seen = []
    for effect in effects:
        headers = dict(getattr(effect, "headers", None) or [])
        seen.append((type(effect).__name__, headers.get(b":status", getattr(effect, "data", None))))
    return seen


REFUSED = [("ResponseHeaders", b"431"), ("ResponseBody", b"Request Header Fields Too Large")]
BAD_UPSTREAM = [
    ("ResponseHeaders", b"502"),
    ("ResponseBody", b"upstream connect or disconnect/reset before headers. reset reason: protocol error"),
]


@pytest.mark.parametrize("form", [list, tuple, iter], ids=["list", "tuple", "iterator"])
@pytest.mark.parametrize(
    ("headers", "details"),
    [
        ([*REQUEST, *MANY], "http1.too_many_headers"),
        ([*REQUEST, *MANY[:99], MANY[0]], "http1.too_many_headers"),
        ([*REQUEST, (b"x", b"v" * (LEFT + 1))], "http1.headers_too_large"),
    ],
    ids=["one more header", "one more of a name that was there", "one more byte"],
)
def test_a_request_beyond_them_is_refused_before_a_filter_sees_it(host, probe, trace, headers, details, form):
    plugin = probe()
    trace.take()
    before = set(plugin._vm.contexts)
    with host.http_stream([plugin, probe(name="other")]) as stream:
        assert told(stream.request_headers(form(headers))) == REFUSED
        assert stream.details == details
        assert stream.request_body(b"x", True) + stream.response_headers(RESPONSE, True) == []
    assert [event for event in trace.take() if not event.startswith("other: proxy_on_c")][1:] == []
    assert set(plugin._vm.contexts) - before <= {plugin._root.id + 1}  # the root context of the other


@pytest.mark.parametrize("headers", [[*REQUEST, *MANY[:99]], [*REQUEST, (b"x", b"v" * LEFT)]], ids=["count", "size"])
def test_a_request_within_them_passes(host, probe, headers):
    with host.http_stream([probe()]) as stream:
        assert told(stream.request_headers(headers, True)) == [("RequestHeaders", None)]


def test_trailers_of_a_request(host, probe, trace):
    plugin = probe()
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        trace.take()
        assert told(stream.request_trailers(TRAILERS)) == REFUSED
        assert stream.details == "http1.too_many_trailers"
        assert [event for event in trace.take() if "request_trailers" in event] == []


def test_a_response(host, probe, trace):
    plugin = probe()
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        trace.take()
        assert told(stream.response_headers([*RESPONSE, *MANY], True)) == BAD_UPSTREAM
        assert stream.details == "upstream_reset_before_response_started{protocol_error}"
        # the filters meet the answer, as any that is made here
        assert [event for event in trace.take() if "response_headers" in event] == ["probe: proxy_on_response_headers(3, 0)"]


def test_trailers_of_a_response(host, probe):
    with host.http_stream([probe()]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        assert told(stream.response_trailers(TRAILERS)) == [("ResetStream", None)]


def test_other_limits_or_none(host, probe):
    headers = [*REQUEST, *MANY, *LARGE]
    for limits, kind in ((None, "RequestHeaders"), (HeaderLimits(102, 70_000), "RequestHeaders"), (HeaderLimits(count=1), "ResponseHeaders")):
        with host.http_stream([probe()], header_limits=limits) as stream:
            assert told(stream.request_headers(headers, True))[0][0] == kind
            assert stream.header_limits is limits


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda _: HeaderLimits("100"), TypeError, "count of HeaderLimits is a whole number, not '100'"),
        (lambda _: HeaderLimits(size=-1), ValueError, "size of HeaderLimits is -1, which is less than 0"),
        (lambda host: host.http_stream([], header_limits=100), TypeError, "header_limits are HeaderLimits or None, not 100"),
    ],
)
def test_limits_that_are_none(host, wrong, error, says):
    with pytest.raises(error, match=says):
        wrong(host)


# -- The room of filters -------------------------------------------------------------------------------------------------


def test_what_a_client_sends_takes_nothing_of_a_filters_room(host):
    """A filter of the Rust SDK panics if a header is refused; without limits on the client all headers reach it."""
    plugin = host.load_plugin(code("rust/headers"), configuration="hello")
    headers = [*REQUEST, *((b"x-%d" % number, b"1") for number in range(1100))]
    with host.http_stream([plugin], header_limits=None) as stream:
        (sent,) = stream.request_headers(headers, True)
        assert sent.headers[-1] == (b"x-wasm", b"hello")
        assert told(stream.response_headers([*RESPONSE, *headers[5:]], True)) == [("ResponseHeaders", b"200")]
    assert plugin.failure is None


@pytest.mark.parametrize("direction", ["request", "response"])
def test_what_a_filter_adds_takes_nothing_of_anothers_room(host, probe, log, direction):
    """Of headers, of trailers, of a body, of properties: the second filter can still add all that it could alone."""
    map, buffer = (0, 0) if direction == "request" else (2, 1)
    script = f"""@on_{direction}_headers
repeat 1026
add_header_map_value {map} x v
set_property mine%PLACE% fill:v:900000
set_property theirs v
@on_{direction}_body
repeat 18
set_buffer_bytes {buffer} 0xffffffff 0 fill:x:1000000
@on_{direction}_trailers
repeat 1026
add_header_map_value {map + 1} t v"""
    plugins = [probe(script.replace("%PLACE%", str(place)), name=f"p{place}", vm_id=str(place)) for place in range(2)]
    log.take()
    with host.http_stream(plugins) as stream:
        stream.request_headers(REQUEST)
        if direction == "request":
            stream.request_body(b"x")
            stream.request_trailers([(b"t", b"v")])
        else:
            stream.response_headers(RESPONSE)
            stream.response_body(b"x")
            stream.response_trailers([(b"t", b"v")])
    by_plugin: dict[str, list[int]] = {"p0": [], "p1": []}
    for line in log.lines:
        if ") = " in line.message:
            by_plugin[line.plugin].append(int(line.message.rpartition(") = ")[2].split(" ")[0]))
    first, second = (by_plugin[name] for name in (("p0", "p1") if direction == "request" else ("p1", "p0")))
    assert first[: 1026 + 2] == [0] * 1024 + [10] * 2 + [0, 0]
    assert first[1028 + 18 :] == [0] * 1024 + [10] * 2
    assert first[1028 : 1028 + 18] == [0] * 16 + [10] * 2
    assert second[1028 : 1028 + 16] == [0] * 16
    assert second[1028 + 18 :] == first[1028 + 18 :]
    assert second[:1028] == first[:1028]


def test_a_property_that_another_filter_writes_over_is_no_longer_its_first_ones(host, probe, log):
    one = probe("@on_request_headers\nset_property a fill:v:900000\n@on_response_headers\nset_property b fill:v:900000", vm_id="1")
    other = probe("@on_request_headers\nset_property a short", vm_id="2")
    log.take()
    with host.http_stream([one, other]) as stream:
        stream.request_headers(REQUEST, True)
        assert 0 < stream._stored.used < 1000
        stream.response_headers(RESPONSE, True)
        assert stream.filter_state["a"] == b"short"
        assert len(stream.filter_state["b"]) == 900_000
