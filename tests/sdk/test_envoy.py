"""The same filters in a real Envoy: what goes up and what comes back is as in tests/sdk/test_examples.py."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import proxywasm_pack
import pytest

from tests.envoy.rig import Case, Filter, Request, Response, ask, find_envoy
from tests.sdk.conftest import packed
from tests.sdk.test_examples import public_key, rsa_token, token

if importlib.util.find_spec("envoy") is None:
    pytest.skip("there is no Envoy here", allow_module_level=True)

OK = Response()
JSON = ("content-type", "application/json")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("envoy")

    def case(name, request, config=None, response=OK, title="", **more):
        path = folder / f"{name}.wasm"
        path.write_bytes(packed(name))
        text = "" if config is None else json.dumps(config)
        return Case(title or name, [Filter(path, text)], request, response, **more)

    rules = {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"set": {"x-s": "s"}}, "deny": ["/no"]}
    login = {"provider": "upstream", "url": "https://idp/login", "client": "me"}
    bearer = [("authorization", f"Bearer {token({'sub': 'alice', 'exp': 4e9})}")]
    return ask(
        [
            case("header_rules", Request(path="/x", headers=[("x-b", "2")]), rules),
            case("jwt", Request(headers=bearer), {"hs256": "secret"}),
            case(
                "jwt",
                Request(headers=[("authorization", f"Bearer {rsa_token({'sub': 'bob', 'exp': 4e9})}")]),
                {"rs256": public_key()},
                title="rs256",
            ),
            case(
                "jwt",
                Request(headers=[("authorization", f"Bearer {rsa_token({'sub': 'bob'})}x")]),
                {"rs256": public_key()},
                title="rs256, forged",
            ),
            case(
                "oidc",
                Request(path="/page", headers=[("cookie", "session=t%2F1")]),
                login,
                callouts={"/introspect": Response(200, [], [b'{"active": true, "sub": "alice"}'])},
            ),
            case("rate_limit", Request(), {"limit": 2, "seconds": 600}, repeat=3),
            case(
                "json_body",
                Request("POST", "/", [JSON], [b'{"a"', b": [1]}"]),
                {"drop": ["password"]},
                Response(200, [JSON], [b'{"name": "x", "password": "y"}']),
            ),
            case(
                "redact_sse",
                Request(),
                response=Response(
                    200, [("content-type", "text/event-stream")], [b"data: card 4111", b"111111111111 ok\n\n"]
                ),
            ),
            case("ab_cookie", Request(headers=[("cookie", "variant=a")]), {"b": 1.0}),
            case("request_log", Request(path="/p"), response=Response(201, [], [b"abc", b"de"])),
        ],
        folder,
    )


def test_header_rules(answers):
    a = answers["header_rules"]
    assert dict(a.upstream_request.headers)[b"x-a"] == b"1"
    assert b"x-b" not in dict(a.upstream_request.headers)
    assert dict(a.client_response.headers)[b"x-s"] == b"s"


def test_jwt(answers):
    assert dict(answers["jwt"].upstream_request.headers)[b"x-user"] == b"alice"


def test_jwt_with_a_public_key(answers):
    assert dict(answers["rs256"].upstream_request.headers)[b"x-user"] == b"bob"
    assert answers["rs256, forged"].client_response.status == 401


def test_login(answers):
    a = answers["oidc"]
    assert [(c.path, c.body) for c in a.callouts] == [("/introspect", b"token=t%2F1")]
    assert dict(a.upstream_request.headers)[b"x-user"] == b"alice"


def test_rate_limit(answers):
    a = answers["rate_limit"]
    assert [e.client_response.status for e in [*a.earlier, a]] == [200, 200, 429]


def test_json_body(answers):
    a = answers["json_body"]
    assert json.loads(a.upstream_request.body) == {"a": [1], "seen": True}
    assert json.loads(a.client_response.body) == {"name": "x"}


def test_redaction(answers):
    assert answers["redact_sse"].client_response.body == b"data: card ************1111 ok\n\n"


def test_ab_routing(answers):
    a = answers["ab_cookie"]
    assert dict(a.upstream_request.headers)[b"x-variant"] == b"a"
    assert dict(a.client_response.headers)[b"set-cookie"] == b"seen=yes; Path=/"


def test_request_log(answers):
    lines = [message for _, level, message in answers["request_log"].logs if level == "info"]
    assert [json.loads(line) for line in lines] == [
        {"method": "GET", "path": "/p", "status": 201, "size": 5, "count": 1}
    ]


def test_the_configuration_of_the_docs(tmp_path):
    """The first program of docs/python-filters.md in Envoy, as that page says; nobody answers for the cluster."""
    text = (Path(__file__).parents[2] / "docs" / "python-filters.md").read_text()
    (tmp_path / "filter.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    (tmp_path / "filter.wasm").write_bytes(proxywasm_pack.pack(tmp_path / "filter.py"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1].replace("port_value: 8080", f"port_value: {port}")
    (tmp_path / "envoy.yaml").write_text(config.replace("port_value: 8000", "port_value: 9"))
    command = [find_envoy(), "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def status(headers):
        end = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers), timeout=20)
            except urllib.error.HTTPError as answer:
                answer.close()
                return answer.code
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)

    try:
        assert status({}) == 401
        assert status({"authorization": "t"}) == 403
    finally:
        process.terminate()
        process.wait(20)
