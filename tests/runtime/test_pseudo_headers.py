"""What a request without its pseudo headers is answered, as by Envoy 1.40."""

from __future__ import annotations

from itertools import combinations

import pytest

from proxywasm_host.runtime.effects import RequestHeaders, ResponseBody, ResponseHeaders
from tests.support import REQUEST

NAMES = (":scheme", ":authority", ":method", ":path")
COMBINATIONS = [removed for count in range(5) for removed in combinations(NAMES, count)]


def envoy(removed: tuple[str, ...]) -> tuple[int, bytes, str] | None:
    """Status, body and details; ``None`` if the request goes on."""
    if ":path" in removed:
        return 404, b"", "route_not_found"
    if ":method" in removed:
        why = "filter_removed_required_request_headers{missing_required_header:_:method}"
        return 503, b"missing required header: :method", why
    return None


@pytest.mark.parametrize("removed", COMBINATIONS, ids=[" ".join(removed) or "none" for removed in COMBINATIONS])
def test_a_request_without(host, probe, removed):
    plugin = probe("\n".join(["@on_request_headers", *(f"remove_header_map_value 0 {name}" for name in removed)]))
    with host.http_stream([plugin]) as stream:
        first, *more = stream.request_headers(REQUEST, True)
        answer = envoy(removed)
        if answer is None:
            left = [pair for pair in REQUEST if pair[0].decode() not in removed]
            assert (first, more) == (RequestHeaders(left, True, stream), [])
            return
        status, body, details = answer
        assert isinstance(first, ResponseHeaders)
        assert (dict(first.headers)[b":status"], first.end_stream) == (b"%d" % status, not body)
        assert more == ([ResponseBody(body, True, stream)] if body else [])
        assert stream.details == details
