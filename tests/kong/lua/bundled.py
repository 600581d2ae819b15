"""Kong's own plugins, as they are in its sources, do here what Kong's documentation says.

Kong's sources are no part of this project: ``python -m tests.kong.lua.bundled FOLDER`` takes the folder of a checkout, and
prints which plugins did it; docs/kong-lua.md has the result. It fails if one did not.
"""

from __future__ import annotations

import base64
import email.utils
import hmac
import http.server
import json
import socket
import sys
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.context import Context, Response
from proxywasm_host.kong.plugin import HttpReply, HttpRequest
from tests.kong.lua.support import Gateway, World, request

ADA = {"id": "c0000000-0000-4000-8000-000000000001", "username": "ada", "custom_id": "A1"}
ANYONE = {"id": "c0000000-0000-4000-8000-000000000002", "username": "anyone"}
OF_ADA = {"consumer": {"id": ADA["id"]}}
ENTITIES = {
    "consumers": [ADA, ANYONE],
    "keyauth_credentials": [{"id": "k", "key": "sesame", **OF_ADA}],
    "basicauth_credentials": [{"id": "b", "username": "ada", "password": "open", **OF_ADA}],
    "hmacauth_credentials": [{"id": "h", "username": "ada", "secret": "s3cret", **OF_ADA}],
    "jwt_secrets": [{"id": "j", "key": "issuer", "secret": "s3cret", **OF_ADA}],
    "acls": [{"id": "a", "group": "admins", **OF_ADA}],
}
SOURCES = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


class Seen:
    """A request and its response after all phases."""

    def __init__(self, context: Context, response: Response) -> None:
        self.context, self.response = context, response
        self.status, self.body = response.status, response.body
        self.headers = {name: values[-1] for name, values in response.headers.by_name().items()}
        self.upstream = context.request.headers.by_name()


def gateway(*plugins: tuple[str, dict[str, Any]], **settings: Any) -> Callable[..., Seen]:
    gate = Gateway(SOURCES, **settings)
    for name, config in plugins:
        gate.load(name, config)

    def send(up: dict[str, Any] | None = None, **about: Any) -> Seen:
        context = request(gate.world, entities=ENTITIES, **about)
        response = gate.through(context, **(up or {}))
        gate.world.run_timers()
        return Seen(context, response)

    return send


def refused(name: str, config: dict[str, Any], message: str) -> None:
    try:
        Gateway(SOURCES).load(name, config)
    except ConfigError as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"{config} was accepted")


def correlation_id() -> None:
    send = gateway(("correlation-id", {"header_name": "X-Id", "echo_downstream": True}))
    first, second = send(), send()
    assert first.upstream["x-id"] == [first.headers["x-id"]]
    assert first.headers["x-id"].endswith("#1")
    assert second.headers["x-id"] == first.headers["x-id"][:-1] + "2"
    assert send(headers={"x-id": "mine"}).headers["x-id"] == "mine"


def request_termination() -> None:
    seen = gateway(("request-termination", {"status_code": 403, "message": "So long"}))()
    assert (seen.status, seen.body) == (403, b'{"message":"So long"}')
    send = gateway(("request-termination", {"echo": True, "trigger": "x-stop"}))
    assert send().status == 200
    echo = json.loads(send(method="POST", headers={"x-stop": "1"}, body=b"text").body)
    assert (echo["request"]["raw_body"], echo["request"]["uri_captures"]["named"]) == ("text", {"id": "7"})
    refused("request-termination", {"status_code": 99}, "config.status_code: value should be between 100 and 599")


def ip_restriction() -> None:
    send = gateway(("ip-restriction", {"allow": ["10.0.0.0/24", "::1"]}))
    assert [send(ip=ip).status for ip in ("10.0.0.5", "10.0.1.5", "::1")] == [200, 403, 200]
    assert gateway(("ip-restriction", {"deny": ["10.0.0.5"], "status": 410}))().status == 410
    refused("ip-restriction", {"deny": ["10.0.0.300"]}, "config.deny[1]: invalid ip or cidr range: '10.0.0.300'")


def bot_detection() -> None:
    send = gateway(("bot-detection", {"deny": ["curl"], "allow": ["curl/9"]}))
    agents = ("Mozilla/5.0", "curl/8", "curl/9", "Googlebot/2.1")
    assert [send(headers={"user-agent": agent}).status for agent in agents] == [200, 403, 200, 403]


def cors() -> None:
    send = gateway(("cors", {"origins": [r"https://.*\.shop\.example$", "http://a.example"], "max_age": 60}))
    assert send(headers={"origin": "https://x.shop.example"}).headers["access-control-allow-origin"] == "https://x.shop.example"
    assert "access-control-allow-origin" not in send(headers={"origin": "https://evil"}).headers
    preflight = send(method="OPTIONS", headers={"origin": "http://a.example", "access-control-request-method": "PUT"})
    assert (preflight.status, preflight.headers["access-control-max-age"], preflight.context.exit is not None) == (200, "60", True)
    refused("cors", {"origins": ["("]}, "config.origins[1]: '(' is not a valid regex")


def request_transformer() -> None:
    send = gateway((
        "request-transformer",
        {
            "remove": {"headers": ["x-a"], "querystring": ["b"]}, "rename": {"headers": ["x-old:x-new"]},
            "replace": {"uri": "/v2/$(uri_captures.id)", "body": ["k:new"]},
            "add": {"headers": ["x-q:$(query_params.a[1])"], "body": ["n:v"]}, "append": {"querystring": ["z:9"]},
        },
    ))  # fmt: skip
    seen = send(method="POST", headers={"x-a": "1", "x-old": "o", "content-type": "application/json"}, body=b'{"k": "old", "e": []}')
    assert json.loads(seen.context.request.body) == {"k": "new", "e": [], "n": "v"}
    assert (seen.context.upstream.path, seen.context.request.query) == ("/v2/7", "a=1&a=3&z=9")
    assert ("x-a" in seen.upstream, seen.upstream["x-new"], seen.upstream["x-q"]) == (False, ["o"], ["1"])
    assert seen.upstream["content-length"] == [str(len(seen.context.request.body))]
    form = send(method="POST", headers={"content-type": "application/x-www-form-urlencoded"}, body=b"k=1&l=2")
    assert form.context.request.body == b"k=new&l=2&n=v"


def response_transformer() -> None:
    send = gateway((
        "response-transformer",
        {
            "remove": {"headers": ["x-gone"], "json": ["secret"]}, "replace": {"headers": ["server:us"]},
            "add": {"headers": ["x-new:1"], "json": ["n:5"], "json_types": ["number"]}, "append": {"json": ["l:x"]},
        },
    ))  # fmt: skip
    up = {"headers": {"x-gone": "1", "server": "s", "content-type": "application/json"}, "body": b'{"secret": 1, "l": []}'}
    seen = send(up)
    assert json.loads(seen.body) == {"n": 5, "l": ["x"]}
    assert seen.headers == {"server": "us", "content-type": "application/json", "x-new": "1"}


def key_auth() -> None:
    send = gateway(("key-auth", {"hide_credentials": True}))
    none, wrong, right = send(), send(headers={"apikey": "no"}), send(target="/orders?apikey=sesame&x=1")
    assert (none.status, none.headers["www-authenticate"], wrong.status) == (401, "Key", 401)
    assert (right.status, right.upstream["x-consumer-username"], right.context.request.query) == (200, ["ada"], "x=1")
    assert (right.context.consumer, right.context.credential["key"]) == (ADA, "sesame")
    assert gateway(("key-auth", {"anonymous": "anyone"}))().upstream["x-anonymous-consumer"] == ["true"]


def _basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def basic_auth() -> None:
    send = gateway(("basic-auth", {"hide_credentials": True}))
    assert [send(headers=headers).status for headers in ({}, _basic("ada:no"), _basic("ada:open"))] == [401, 401, 200]
    assert "authorization" not in send(headers=_basic("ada:open")).upstream


def jwt() -> None:
    def token(key: str = "s3cret", **claims: Any) -> dict[str, str]:
        parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, {"iss": "issuer", **claims})]
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = base64.urlsafe_b64encode(hmac.digest(key.encode(), signed, "sha256")).rstrip(b"=")
        return {"authorization": f"Bearer {(signed + b'.' + signature).decode()}"}

    send = gateway(("jwt", {"claims_to_verify": ["exp"]}))
    assert send(headers=token(exp=4e9)).upstream["x-consumer-id"] == [ADA["id"]]
    answers = [send(headers=token("wrong", exp=4e9)), send(headers=token(exp=1)), send(headers=token(iss="x")), send()]
    assert [answer.status for answer in answers] == [401] * 4
    assert [answer.body for answer in answers[:2]] == [b'{"message":"Invalid signature"}', b'{"exp":"token expired"}']


def acl() -> None:
    for config, status in (({"allow": ["admins"]}, 200), ({"allow": ["staff"]}, 403), ({"deny": ["admins"]}, 403)):
        assert gateway(("key-auth", {}), ("acl", config))(headers={"apikey": "sesame"}).status == status
    assert gateway(("acl", {"allow": ["admins"]}))().status == 401
    refused("acl", {"allow": ["x"], "deny": ["y"]}, "exactly one of these fields must be non-empty: 'config.allow', 'config.deny'")


def rate_limiting() -> None:
    send = gateway(("rate-limiting", {"minute": 2, "policy": "local"}))
    seen = [send() for _ in range(3)]
    if [each.status for each in seen] == [200, 200, 200]:  # a minute began between them
        seen = [send() for _ in range(3)]
    assert [each.status for each in seen][-1] == 429
    assert seen[-1].headers["x-ratelimit-limit-minute"] == "2"
    assert seen[-1].headers["retry-after"] == seen[-1].headers["ratelimit-reset"]
    assert send(ip="10.9.9.9").status == 200
    refused("rate-limiting", {"minute": 5, "hour": 2, "policy": "local"}, "The limit for hour(2.0) cannot be lower than the limit for minute(5.0)")


def request_size_limiting() -> None:
    send = gateway(("request-size-limiting", {"allowed_payload_size": 1, "size_unit": "kilobytes"}))
    assert [send(method="POST", body=b"x" * size).status for size in (1024, 1025)] == [200, 413]
    assert send(method="POST", body=b"x" * 1025, headers={"expect": "100-continue"}).status == 417


def file_log() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.log")
        send = gateway(("file-log", {"path": str(file), "custom_fields_by_lua": {"x.y": "return kong.request.get_method()"}}), writable=[Path(folder)])
        send(headers={"authorization": "secret"})
        send()
        first, _ = map(json.loads, file.read_text().splitlines())
    assert (first["x"], first["request"]["headers"]["authorization"], first["response"]["status"]) == ({"y": "GET"}, "REDACTED", 200)


def http_log() -> None:
    got = []

    class Log(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.headers["authorization"], json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(500 if len(got) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Log)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gateway(("http-log", {"http_endpoint": f"http://u:p@127.0.0.1:{server.server_port}/log"}))()
    server.shutdown()
    server.server_close()
    assert [(who, entry["service"]["name"]) for who, entry in got] == [("Basic dTpw", "orders")] * 2  # the first was refused


def proxy_cache() -> None:
    send = gateway(("proxy-cache", {"strategy": "memory", "content_type": ["text/plain"]}))
    up = {"headers": {"content-type": "text/plain", "x-up": "1"}, "body": b"hello"}
    miss, hit = send(up), send({"status": 500})
    assert (miss.headers["x-cache-status"], hit.headers["x-cache-status"]) == ("Miss", "Hit")
    assert (hit.status, hit.body, hit.headers["x-up"], hit.headers["age"]) == (200, b"hello", "1", "0")
    assert send(up, target="/else").headers["x-cache-status"] == "Miss"
    assert send(up, method="POST").headers["x-cache-status"] == "Bypass"
    refused("proxy-cache", {"strategy": "memory", "memory": {"dictionary_name": "none"}}, "missing shared dict 'none'")


def hmac_auth() -> None:
    send = gateway(("hmac-auth", {"clock_skew": 300, "enforce_headers": ["date", "request-line"]}))
    date = email.utils.formatdate(usegmt=True)

    def signed(secret: bytes) -> dict[str, str]:
        text = f"date: {date}\nGET /orders/7?b=2&a=1&a=3 HTTP/1.1"
        digest = base64.b64encode(hmac.digest(secret, text.encode(), "sha256")).decode()
        said = f'hmac username="ada", algorithm="hmac-sha256", headers="date request-line", signature="{digest}"'
        return {"date": date, "authorization": said}

    right = send(headers=signed(b"s3cret"))
    assert (right.status, right.upstream["x-consumer-username"]) == (200, ["ada"])
    assert [send(headers=headers).status for headers in (signed(b"other"), {"date": date}, {})] == [401] * 3


def response_ratelimiting() -> None:
    send = gateway(("response-ratelimiting", {"limits": {"video": {"minute": 3}}, "policy": "local"}))
    two = {"headers": {"x-kong-limit": "video=2"}}
    first, second = send(two), send(two)
    assert (first.status, first.headers["x-ratelimit-remaining-video-minute"], "x-kong-limit" in first.headers) == (200, "1", False)
    assert second.status == 200  # what is used up is known from its response
    assert send(two).status == 429


class Datagrams:
    """Whoever takes what is sent by UDP."""

    def __enter__(self) -> Datagrams:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(10)
        self.where = {"host": "127.0.0.1", "port": self._socket.getsockname()[1]}
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self) -> str:
        return self._socket.recv(65536).decode()


def udp_log() -> None:
    with Datagrams() as log:
        gateway(("udp-log", {**log.where, "custom_fields_by_lua": {"x": "return 7"}}))()
        entry = json.loads(log.next())
    assert (entry["service"]["name"], entry["response"]["status"], entry["x"]) == ("orders", 200, 7)


def loggly() -> None:
    with Datagrams() as log:
        gateway(("loggly", {**log.where, "key": "of-ours", "tags": ["a"], "successful_severity": "info", "log_level": "info"}))()
        line = log.next()
    assert line.startswith("<14>1 ")  # user, info
    assert '[of-ours@41058 tag="a"]' in line
    assert json.loads(line[line.index("{") :])["response"]["status"] == 200


def statsd() -> None:
    with Datagrams() as log:
        send = gateway(("statsd", {**log.where, "metrics": [{"name": "request_count", "stat_type": "counter", "sample_rate": 1}]}))
        send()
        assert log.next() == "kong.service.orders.request.count:1|c"


def datadog() -> None:
    with Datagrams() as log:
        metric = {"name": "request_count", "stat_type": "counter", "sample_rate": 1, "tags": ["app:x"]}
        gateway(("datadog", {**log.where, "metrics": [metric]}))()
        assert log.next() == "kong.request.count:1|c|#name:orders,status:200,app:x"


def tcp_log() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def accept() -> None:
            with server.accept()[0] as connection, connection.makefile("rb") as lines:
                got.append(lines.readline())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        gateway(("tcp-log", {"host": "127.0.0.1", "port": server.getsockname()[1]}))()
        thread.join(10)
    assert json.loads(got[0])["request"]["method"] == "GET"


def pre_function() -> None:
    code = "return function() kong.service.request.set_header('x-pre', kong.request.get_path()) end"
    seen = gateway(
        ("pre-function", {"access": [code], "header_filter": ["kong.response.set_header('x-out', 'pre')"]}),
        ("post-function", {"access": ["if kong.request.get_query_arg('b') == '9' then kong.response.exit(418) end"]}),
    )
    assert (seen().upstream["x-pre"], seen().headers["x-out"]) == (["/orders/7"], "pre")
    assert seen(target="/?b=9").status == 418
    refused("pre-function", {"access": ["this is no Lua"]}, "config.access")


post_function = pre_function


def azure_functions() -> None:
    asked = []

    def answer(self: World, effect: Any, context: Context | None) -> Any:
        asked.append(effect)
        return HttpReply(201, [(b"x-fn", b"1")], b"from azure")

    settings = {"functionname": "fn", "appname": "app", "apikey": "key", "clientid": "id"}
    send = gateway(("azure-functions", settings))
    with unittest.mock.patch.object(World, "_answer", answer):
        seen = send()
    call = next(effect for effect in asked if isinstance(effect, HttpRequest))
    assert call.url.startswith("https://app.azurewebsites.net:443/api/fn"), call.url
    assert {name.lower(): value for name, value in call.headers}[b"x-functions-key"] == b"key"
    assert (seen.status, seen.body, seen.headers["x-fn"]) == (201, b"from azure", "1")


def standard_webhooks() -> None:
    send = gateway(("standard-webhooks", {"secret_v1": "s3cret", "tolerance_second": 300}))
    now = str(int(time.time()))

    def signed(secret: bytes, at: str = now) -> dict[str, str]:
        digest = base64.b64encode(hmac.digest(secret, f"1.{at}.{{}}".encode(), "sha256")).decode()
        return {"webhook-id": "1", "webhook-timestamp": at, "webhook-signature": f"v1,{digest}"}

    tried = [signed(b"s3cret"), signed(b"other"), signed(b"s3cret", "1000"), {}]
    assert [send(method="POST", headers=headers, body=b"{}").status for headers in tried] == [200, 400, 400, 400]


CHAT = {"messages": [{"role": "user", "content": "How much is it?"}]}
OF_JSON = {"content-type": "application/json"}


def ai_prompt_decorator() -> None:
    send = gateway(("ai-prompt-decorator", {"prompts": {"prepend": [{"role": "system", "content": "Be brief."}]}}))
    seen = send(method="POST", headers=OF_JSON, body=json.dumps(CHAT).encode())
    sent = json.loads(seen.context.request.body or b"")
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "How much is it?"], sent


def ai_prompt_guard() -> None:
    send = gateway(("ai-prompt-guard", {"deny_patterns": [".*much.*"]}))
    assert send(method="POST", headers=OF_JSON, body=json.dumps(CHAT).encode()).status == 400
    other = {"messages": [{"role": "user", "content": "Hello"}]}
    assert send(method="POST", headers=OF_JSON, body=json.dumps(other).encode()).status == 200


def ai_prompt_template() -> None:
    template = {"name": "ask", "template": '{"messages": [{"role": "user", "content": "Tell of {{what}}"}]}'}
    send = gateway(("ai-prompt-template", {"templates": [template]}))
    asked = {"prompt": "{template://ask}", "properties": {"what": "bees"}}
    seen = send(method="POST", headers=OF_JSON, body=json.dumps(asked).encode())
    assert json.loads(seen.context.request.body or b"")["messages"][0]["content"] == "Tell of bees"


def not_here() -> None:
    """What needs more than there is is refused when it is loaded, with what is missing."""
    for name, missing in NOT_HERE.items():
        try:
            Gateway(SOURCES).load(name)
        except ConfigError as error:
            assert missing in str(error), error
        else:
            raise AssertionError(f"{name} was loaded")


NOT_HERE = {
    "ldap-auth": "the FFI is not in the sandbox",
    "oauth2": "attempt to call field 'ttl'",
    "session": "module 'resty.session' not found",
    "grpc-gateway": "module 'pb' not found",
    "grpc-web": "module 'pb' not found",
    "syslog": "module 'lsyslog' not found",
    "prometheus": "module 'ngx.balancer' not found",
    "zipkin": "attempt to call field 'propagation'",
    "opentelemetry": "module 'lua_pack' not found",
    "aws-lambda": "module 'resty.aws.config' not found",
    "acme": "module 'ngx.ssl' not found",
    "ai-proxy": "module 'resty.gcp.request.credentials.accesstoken' not found",
    "redirect": "module 'resty.ada' not found",
}


CHECKS = (
    correlation_id, request_termination, ip_restriction, bot_detection, cors, request_transformer, response_transformer, key_auth,
    basic_auth, jwt, acl, rate_limiting, request_size_limiting, file_log, http_log, proxy_cache,
    hmac_auth, response_ratelimiting, tcp_log, udp_log, loggly, statsd, datadog, pre_function, post_function, azure_functions,
    standard_webhooks, ai_prompt_decorator, ai_prompt_guard, ai_prompt_template, not_here,
)  # fmt: skip


def main() -> int:
    failed = 0
    for check in CHECKS:
        try:
            check()
        except Exception as error:  # each is shown
            failed += 1
            print(f"{check.__name__.replace('_', '-'):24} {type(error).__name__}: {error}")
        else:
            print(f"{check.__name__.replace('_', '-'):24} as documented")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
