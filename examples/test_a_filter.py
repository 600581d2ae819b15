"""A unit test of a filter: what the Rust filter `auth` does without the token, with it, and when it asks a service.

python -m pytest examples/test_a_filter.py
"""

from pathlib import Path

import pytest

from proxywasm_host import Host
from proxywasm_host.runtime.effects import HttpCallReply
from proxywasm_host.testing import Message, exchange

AUTH = Path(__file__).parent.parent / "tests" / "filters" / "rust" / "auth.wasm"
REQUEST = Message.request("GET", "/", [("authorization", "Bearer secret")])


@pytest.fixture
def host():
    with Host() as host:
        yield host


def test_without_the_token(host):
    auth = host.load_plugin(AUTH, configuration="secret")
    result = exchange(host, [auth], Message.request("GET", "/"))
    assert result.upstream_request is None
    assert result.client_response.status == 401
    assert result.client_response.first(b"www-authenticate").startswith(b"Bearer")


def test_with_the_token(host):
    auth = host.load_plugin(AUTH, configuration="secret")
    result = exchange(host, [auth], REQUEST)
    assert result.answered_by == "upstream"
    assert result.client_response.status == 200


@pytest.mark.parametrize("status", [200, 403])
def test_a_service_is_asked(host, status):
    auth = host.load_plugin(AUTH, configuration="callout:accounts")
    reply = HttpCallReply([(b":status", b"%d" % status)])
    result = exchange(host, [auth], REQUEST, callouts={"accounts": reply})
    assert result.client_response.status == status
    assert f"auth: token 4 answered {status} " in [line.message for line in result.logs]
