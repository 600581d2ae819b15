"""A unit test of the Rust filter `auth`: without the token, with it, and with a call of a service.

python -m pytest examples/test_a_filter.py
"""

import pytest

AUTH = "../tests/filters/rust/auth.wasm"
SECRET = {"authorization": "Bearer secret"}


def test_without_the_token(proxywasm):
    outcome = proxywasm(AUTH, "secret").get("/")
    assert outcome.upstream is None
    assert outcome.status == 401
    assert outcome.response.headers["www-authenticate"].startswith("Bearer")


def test_with_the_token(proxywasm):
    outcome = proxywasm(AUTH, "secret").get("/", SECRET)
    assert outcome.upstream.headers == SECRET
    assert outcome.status == 200


@pytest.mark.parametrize("status", [200, 403])
def test_a_service_is_asked(proxywasm, status):
    auth = proxywasm(AUTH, "callout:accounts")
    auth.http["accounts"] = status
    outcome = auth.get("/", SECRET)
    assert outcome.status == status
    assert outcome.callouts[0].request.headers == SECRET
    assert f"answered {status}" in outcome.logs
