"""A unit test of a filter: what the Rust filter `auth` does without the token, and with it.

python -m pytest examples/test_a_filter.py
"""

from pathlib import Path

import pytest

from proxywasm_host import Host, Plugin
from proxywasm_host.exchange import Message, exchange

AUTH = Path(__file__).parent.parent / "tests" / "filters" / "rust" / "auth.wasm"


@pytest.fixture
def host():
    with Host() as host:
        yield host


@pytest.fixture
def auth(host: Host) -> Plugin:
    return host.load_plugin(AUTH, configuration="secret")


def test_without_the_token(host, auth):
    result = exchange(host, [auth], Message.request("GET", "/"))
    assert result.upstream_request is None
    assert result.client_response.status == 401
    assert result.client_response.first(b"www-authenticate").startswith(b"Bearer")


def test_with_the_token(host, auth):
    result = exchange(host, [auth], Message.request("GET", "/", [("authorization", "Bearer secret")]))
    assert result.local_response is None
    assert result.client_response.status == 200
