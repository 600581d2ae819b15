"""What an ASGI scope is to filters, and what filters made of it is to the application."""

from __future__ import annotations

import pytest

from proxywasm_host.integrations.asgi.scope import TARGET, target, upstream_scope
from proxywasm_host.integrations.heads import RequestHead
from tests.integrations.asgi import scope


@pytest.mark.parametrize("wire", [b"/x?", b"/x", b"/x?a", b"/%2F?", b"*", b"/\xff?\xff"])
def test_a_server_that_tells_the_target_is_believed(wire):
    """ASGI's own keys say the same of `/x?` as of `/x`."""
    told = scope("OPTIONS", "/other", [], **{TARGET: wire})
    assert target(told) == wire


@pytest.mark.parametrize("changed", [b"/y?", b"/y", b"/other"])
def test_what_a_filter_makes_of_the_target_goes_on(changed):
    told = scope("GET", "/x", [], **{TARGET: b"/x?"})
    upstream = upstream_scope(told, target(told), RequestHead(b"GET", changed, b"http", [(b"host", b"a")], True), chunked=False)
    assert (target(upstream), upstream["raw_path"], upstream["query_string"]) == (changed, changed.rstrip(b"?"), b"")
    assert target(told) == b"/x?"
