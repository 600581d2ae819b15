"""The filters of sdk/examples: packed, on every engine, and as they are, under CPython."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from proxywasm_host.testing import FAIL, Response
from tests.sdk.conftest import EXAMPLES


def test_header_rules(harness):
    rules = {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"set": {"server": "s"}}, "deny": ["/no"]}
    f = harness(EXAMPLES / "header_rules.py", rules)
    r = f.get("/x", headers={"x-b": "2", "x-c": "3"})
    assert (r.upstream.headers["x-a"], r.upstream.headers["x-c"]) == ("1", "3")
    assert "x-b" not in r.upstream.headers
    assert (r.status, r.response.headers["server"]) == (200, "s")
    r = f.get("/no/x")
    assert (r.status, r.response.json(), r.upstream) == (403, {"denied": "/no/x"}, None)


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(claims, secret="secret", algorithm="HS256"):
    signed = part(json.dumps({"alg": algorithm}).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()


@cache
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def public_key():
    """The key's public half as text (PEM)."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return rsa_key().public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def rsa_token(claims):
    signed = part(b'{"alg": "RS256"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(rsa_key().sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()


def test_jwt(harness):
    f = harness(EXAMPLES / "jwt.py", {"hs256": "secret"})

    def ask(text):
        r = f.get("/", headers={"authorization": f"Bearer {text}"})
        return r.status, r.upstream and r.upstream.headers.get("x-user"), list(r.logs.info)

    assert ask(token({"sub": "alice", "exp": 4e9})) == (200, "alice", [])
    assert ask(token({"sub": "alice"}, secret="another")) == (401, None, ["refused: signature"])
    assert ask(token({"sub": "alice", "exp": 1})) == (401, None, ["refused: expired"])
    assert ask(token({}, algorithm="none")) == (401, None, ["refused: algorithm none"])
    assert ask("rubbish") == (401, None, ["refused: malformed"])


def test_jwt_with_a_public_key(harness):
    f = harness(EXAMPLES / "jwt.py", {"rs256": public_key()})

    def ask(text):
        r = f.get("/", headers={"authorization": f"Bearer {text}"})
        return r.status, r.upstream and r.upstream.headers.get("x-user"), list(r.logs.info)

    good = rsa_token({"sub": "alice", "exp": 4e9})
    assert ask(good) == (200, "alice", [])
    head, _, signature = good.split(".")
    other = ".".join([head, part(b'{"sub": "mallory"}').decode(), signature])
    assert ask(other) == (401, None, ["refused: signature"])
    assert ask(token({"sub": "alice"})) == (401, None, ["refused: algorithm HS256"])


def test_login(harness):
    f = harness(EXAMPLES / "oidc.py", {"provider": "idp", "url": "https://idp/login", "client": "me"})
    r = f.get("/page?a=b")
    assert r.status == 302
    assert r.response.headers["location"] == (
        "https://idp/login?response_type=code&client_id=me&state=%2Fpage%3Fa%3Db"
    )
    harness.http["idp"] = Response(200, {}, b'{"access_token": "t/1"}')
    r = f.get("/callback?code=c%201&state=/page")
    assert harness.callouts[-1].request.body == b"grant_type=authorization_code&code=c+1&client_id=me"
    assert (r.status, r.response.headers["location"]) == (302, "/page")
    assert r.response.headers["set-cookie"] == "session=t%2F1; Path=/; HttpOnly; Secure"
    harness.http["idp"] = Response(200, {}, b'{"active": true, "sub": "alice"}')
    r = f.get("/page", headers={"cookie": "x=y; session=t%2F1"})
    assert (r.status, r.upstream.headers["x-user"]) == (200, "alice")
    harness.http["idp"] = FAIL
    assert f.get("/page", headers={"cookie": "session=old"}).status == 302


def test_rate_limit(harness):
    f = harness(EXAMPLES / "rate_limit.py", {"limit": 2, "seconds": 60})

    def ask(client):
        r = f.get("/", headers={"x-client": client})
        return r.status, r.upstream and r.upstream.headers["x-remaining"]

    assert [ask("a"), ask("a"), ask("a"), ask("b")] == [(200, "1"), (200, "0"), (429, None), (200, "1")]
    assert harness.metrics["rate_limit.refused"] == 1
    harness.clock.advance(60)
    assert ask("a") == (200, "1")


def test_json_body(harness):
    f = harness(EXAMPLES / "json_body.py", {"drop": ["password"]})
    f.upstream = Response(200, {"content-type": "application/json"}, b'{"name": "x", "password": "y", "n": 1}')
    r = f.request(
        "POST", "/", headers={"content-type": "application/json", "content-length": "10"}, chunks=[b'{"a"', b": [1]}"]
    )
    assert r.upstream.json() == {"a": [1], "seen": True}
    assert list(r.upstream.json()) == ["a", "seen"]
    assert "content-length" not in r.upstream.headers
    assert r.response.json() == {"name": "x", "n": 1}
    assert f.post("/", body=b"{", headers={"content-type": "application/json"}).status == 400
    assert f.post("/", body=b"{").upstream.body == b"{"


def test_redaction_in_a_stream_of_events(harness):
    f = harness(EXAMPLES / "redact_sse.py")
    f.upstream = Response(
        200, {"content-type": "text/event-stream"}, chunks=[b"data: card 4111", b"111111111111 ok\n\ndata: 12", b"3\n\n"]
    )
    r = f.get("/")
    assert r.response.body == b"data: card ************1111 ok\n\ndata: 123\n\n"
    assert r.response.chunks[0] != r.response.body


def test_ab_routing(harness):
    f = harness(EXAMPLES / "ab_cookie.py", {"b": 1.0})
    r = f.get("/", headers={"cookie": "variant=a"})
    assert (r.upstream.headers["x-variant"], r.response.headers["set-cookie"]) == ("a", "seen=yes; Path=/")
    assert f.get("/").upstream.headers["x-variant"] == "b"


def test_request_log(harness):
    f = harness(EXAMPLES / "request_log.py")
    f.upstream = Response(201, {}, chunks=[b"abc", b"de"])
    assert [json.loads(line) for _ in range(2) for line in f.get("/p").logs.info] == [
        {"method": "GET", "path": "/p", "status": 201, "size": 5, "count": 1},
        {"method": "GET", "path": "/p", "status": 201, "size": 5, "count": 2},
    ]
