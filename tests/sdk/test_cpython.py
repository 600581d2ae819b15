"""The same script under CPython and packed: the same comes out."""

from __future__ import annotations

import importlib.util
import json

import pytest
from proxywasm.testing import Host

from proxywasm_host.testing import Harness, Response
from tests.sdk.conftest import EXAMPLES, packed
from tests.sdk.test_examples import token

JSON = {"content-type": "application/json"}
LOGIN = {"provider": "idp", "url": "https://idp/login", "client": "me"}
ACTIVE = 200, {}, b'{"active": true, "sub": "alice"}'
CASES = [
    ("header_rules", "HeaderRules", {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}}, "/", {"x-b": "2"}, b""),
    ("header_rules", "HeaderRules", {"deny": ["/no"]}, "/no/x", {}, b""),
    ("jwt", "Jwt", {"hs256": "secret"}, "/", {"authorization": f"Bearer {token({'sub': 'alice'})}"}, b""),
    ("jwt", "Jwt", {"hs256": "other"}, "/", {"authorization": f"Bearer {token({'sub': 'alice'})}"}, b""),
    ("oidc", "Login", LOGIN, "/page?a=b", {}, b""),
    ("oidc", "Login", LOGIN, "/page", {"cookie": "session=t"}, b""),
    ("rate_limit", "RateLimit", {"limit": 0, "seconds": 60}, "/", {}, b""),
    ("json_body", "JsonBody", {"drop": []}, "/", JSON, b'{"a": [1, 2]}'),
    ("json_body", "JsonBody", {"drop": []}, "/", JSON, b'{"a"'),
    ("redact_sse", "RedactEvents", None, "/", {}, b"x"),
]


@pytest.mark.parametrize(("name", "kind", "config", "path", "headers", "body"), CASES)
def test_the_same_comes_out(engine, name, kind, config, path, headers, body):
    """Of the small host of `proxywasm.testing`."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    host = Host(getattr(module, kind), config)
    host.http["idp"] = ACTIVE
    ours = host.request("POST", path, headers, body)

    with Harness(engine) as harness:
        f = harness(packed(name), b"" if config is None else json.dumps(config))
        harness.http["idp"] = Response(*ACTIVE)
        theirs = f.request("POST", path, headers=headers, body=body)
    assert (ours.status, ours.body) == (theirs.status, theirs.response.body)
    assert ours.headers == {k: theirs.response.headers[k] for k in theirs.response.headers}
    whole = theirs.upstream is not None and theirs.upstream.complete
    assert (ours.upstream_headers is not None) == whole
    if whole:
        assert ours.upstream_body == theirs.upstream.body
        sent = {k: v for k, v in ours.upstream_headers.items() if not k.startswith(":")}
        assert sent == {k: theirs.upstream.headers[k] for k in theirs.upstream.headers if not k.startswith(":")}
