"""Each function of the PDK, and of `ngx`, as a transcript: what a plugin calls in a phase, and what it gets."""

from __future__ import annotations

import pytest

from proxywasm_host.kong.context import Headers, Response
from tests.kong.lua.support import REQUEST_ID, ROUTE, SERVICE, Gateway, World, plugin_folder, request, respond

HANDLER = """
local probe = { PRIORITY = 10, VERSION = "1.0" }
local function pack(...)
  local n = select("#", ...)
  if n < 2 then return (...) end
  local all = {}
  for i = 1, n do all[i] = select(i, ...) == nil and ngx.null or (select(i, ...)) end
  return all
end
for _, phase in ipairs { "rewrite", "access", "response", "header_filter", "body_filter", "log", "init_worker" } do
  probe[phase] = function(_, conf)
    if conf then kong.ctx.shared.result = pack(assert(load(conf.code, "probe"))()) end
  end
end
return probe
"""
SCHEMA = """
return { name = "probe", fields = { { config = { type = "record", fields = { { code = { type = "string", required = true } } } } } } }
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    plugin_folder(folder, "probe", HANDLER, SCHEMA)
    return Gateway(folder)


@pytest.fixture(scope="module")
def probe(gateway):
    return gateway.plugins.load("probe")


@pytest.fixture
def call(gateway, probe):
    """Run code in a phase of a request; returns what it returns."""

    def run(code: str, phase: str = "access", context=None, **about):
        world = gateway.world = World()
        context = context or request(world, **about)
        world.context = context
        if phase not in {"rewrite", "access"} and context.response is None:
            respond(context, 201, {"content-type": "text/plain", "x-up": "1"})
        context.phase = phase
        world.perform(probe.run(phase, context, probe.check({"code": code})), context)
        run.context, run.world = context, world
        return context.shared.get("result")

    return run


POSTED = {"method": "POST", "headers": {"content-type": "application/json"}, "body": b'{"a": [1, {"b": null}], "e": []}'}
FORM = {"method": "POST", "headers": {"content-type": "application/x-www-form-urlencoded"}, "body": b"a=1&a=2&b=%20x&c"}
PARTS = {
    "method": "POST",
    "headers": {"content-type": 'multipart/form-data; boundary="XX"'},
    "body": b'--XX\r\nContent-Disposition: form-data; name="k"\r\n\r\nv 1\r\n--XX--\r\n',
}
SEVERAL = {"headers": [("x-a", "1"), ("X-A", "2"), ("cookie", "s=1; t=2"), ("accept", "text/html")]}

READS = [
    ("kong.request.get_method()", "GET"),
    ("kong.request.get_scheme()", "http"),
    ("kong.request.get_host()", "shop.example"),
    ("kong.request.get_port()", 8000),
    ("kong.request.get_forwarded_scheme()", "https"),
    ("kong.request.get_forwarded_host()", "shop.example"),
    ("kong.request.get_forwarded_port()", 443),
    ("kong.request.get_forwarded_path()", "/orders/7"),
    ("kong.request.get_forwarded_prefix()", None),
    ("kong.request.get_http_version()", 1.1),
    ("kong.request.get_path()", "/orders/7"),
    ("kong.request.get_raw_path()", "/orders/7"),
    ("kong.request.get_path_with_query()", "/orders/7?b=2&a=1&a=3"),
    ("kong.request.get_raw_query()", "b=2&a=1&a=3"),
    ("kong.request.get_query_arg('a')", "1"),
    ("kong.request.get_query()", {"b": "2", "a": ["1", "3"]}),
    ("kong.request.get_query(1)", [{"b": "2"}, "truncated"]),
    ("kong.request.get_start_time()", 1_700_000_000_250),
    ("kong.request.get_uri_captures()", {"named": {"id": "7"}, "unnamed": ["7"]}),
    ("kong.request.get_raw_body()", ""),
    ("kong.request.get_body()", [None, "missing content type"]),
    ("kong.client.get_ip()", "10.0.0.5"),
    ("kong.client.get_forwarded_ip()", "10.0.0.5"),
    ("kong.client.get_port()", 50123),
    ("kong.client.get_forwarded_port()", 50123),
    ("kong.client.get_protocol()", "http"),
    ("kong.client.get_protocol(true)", "https"),
    ("kong.client.get_consumer()", None),
    ("kong.client.get_credential()", None),
    ("kong.router.get_route()", ROUTE),
    ("kong.router.get_service()", SERVICE),
    ("kong.router.get_route() == kong.router.get_route()", True),
    ("kong.nginx.get_subsystem()", "http"),
    ("kong.nginx.get_statistics()", [None, "there is no nginx whose statistics could be shown"]),
    ("#kong.node.get_id()", 36),
    ("kong.node.get_hostname() ~= ''", True),
    ("kong.node.get_memory_stats('m').workers_lua_vms[1].http_allocated_gc:match('^%d+%.%d%d MiB$') ~= nil", True),
    ("kong.ip.is_trusted('10.0.0.5')", False),
    ("kong.table.merge({ a = 1, b = 1 }, { b = 2 })", {"a": 1, "b": 2}),
    ("kong.vault.is_reference('{vault://env/x}')", True),
    ("select(2, kong.vault.get('{vault://env/x}')):match('^[^:]+')", "vaults are not supported"),
    ("kong.version", "3.9.0"),
    ("kong.version_num", 3009000),
    ("kong.pdk_major_version", 2),
    ("ngx.var.remote_addr", "10.0.0.5"),
    ("#ngx.var.binary_remote_addr", 4),
    ("ngx.var.arg_b", "2"),
    ("ngx.var.request", "GET /orders/7?b=2&a=1&a=3 HTTP/1.1"),
    ("ngx.var.upstream_uri", "/orders/7"),
    ("ngx.var.http_host", "shop.example"),
    ("ngx.var.no_such_variable", None),
    ("ngx.get_phase()", "access"),
    ("ngx.req.get_method()", "GET"),
    ("ngx.ctx.route.name", "orders-route"),
    ("ngx.ctx.router_matches.uri_captures.id", "7"),
    ("ngx.worker.id()", 0),
    ("type(ngx.worker.pid())", "number"),
    ("ngx.escape_uri('a b/c?é')", "a%20b%2Fc%3F%C3%A9"),
    ("ngx.escape_uri('a b/c', 0)", "a%20b/c"),
    ("ngx.unescape_uri('a+b%2f')", "a b/"),
    ("ngx.encode_args { a = { 1, 'x y' }, b = true, c = false }", "a=1&a=x%20y&b"),
    ("ngx.decode_args('a=1&b&a=%32')", {"a": ["1", "2"], "b": True}),
    ("ngx.encode_base64('\\255\\0')", "/wA="),
    ("ngx.decode_base64('/wA=') == '\\255\\0'", True),
    ("ngx.decode_base64('no base64!')", None),
    ("ngx.md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
    ("#ngx.sha1_bin('a') + #ngx.hmac_sha1('k', 'a') + #ngx.md5_bin('a')", 56),
    ("ngx.crc32_short('a')", 3904355907),
    ("ngx.http_time(0)", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("ngx.parse_http_time('Thu, 01 Jan 1970 00:00:10 GMT')", 10),
    ("ngx.parse_http_time('no date')", None),
    ("ngx.quote_sql_str(\"a'b\")", "'a\\'b'"),
    ("ngx.re.match('key=value', '(?<name>\\\\w+)=(\\\\w+)', 'jo')", {"0": "key=value", "1": "key", "2": "value", "name": "key"}),
    ("ngx.re.find('abcabc', 'C', 'i', { pos = 4 })", [6, 6]),
    ("ngx.re.find('ab', '(a)(x)?', 'jo', nil, 1)", [1, 1]),
    ("ngx.re.gsub('a1b2', '(\\\\d)', '<$1>$$', 'jo')", ["a<1>$b<2>$", 2]),
    ("ngx.re.sub('a1b2', '\\\\d', function(m) return m[0] * 2 end)", ["a2b2", 1]),
    ("select(2, ngx.re.match('a', '(', 'jo'))", "pcre2_compile() failed: compilation failed at position 1; missing closing parenthesis"),
    ("select(2, ngx.re.match('a', 'a', 'q'))", 'unknown flag "q" (flags "q")'),
    ("ngx.shared.no_such_dictionary", None),
    ("require('ngx.re').split('a, b,c', ',\\\\s*')", ["a", "b", "c"]),
    ("require('ngx.base64').encode_base64url('\\255\\255')", "__8"),
    ("require('resty.sha256'):new():final('a') == require('kong.tools.sha256').sha256_bin('a')", True),
    ("(require('cjson.safe').decode('{'))", None),
    ("require('cjson').decode('[1, null, {\"é\": \"\\\\u00e9\"}]')", [1, None, {"é": "é"}]),
    ("select(2, require('cjson.safe').encode({ print }))", "Cannot serialise function: type not supported"),
    ("select(2, require('cjson.safe').encode({ [1] = 1, [100] = 1 }))", "Cannot serialise table: excessively sparse array"),
    ("select(2, require('cjson.safe').encode(0/0))", "Cannot serialise number: must not be NaN or Infinity"),
    ("require('kong.tools.uri').normalize('/a//b/../%7ec/./%2f', true)", "/a/~c/%2F"),
    ("require('kong.tools.string').splitn('a,b,c', ',', 2)", [["a", "b,c"], 2]),
    ("require('kong.tools.http').parse_directive_header('max-age=5, No-Store')", {"max-age": 5, "no-store": True}),
    ("require('kong.tools.mime_type').parse_mime_type('Text/HTML; charset=\"x\"')", ["text", "html", {"charset": "x"}]),
    ("require('kong.tools.timestamp').get_timestamps(1700000000000).month", 1698796800000),
    ("require('socket.url').parse('https://u:p@h:81/p?q#f').port", "81"),
    ("require('pl.template').compile('a$(x + 1)b'):render({ x = 1 })", "a2b"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "result"), READS, ids=[code for code, _ in READS])
def test_a_plugin_reads(call, code, result):
    assert call(f"return {code}") == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("gzip.deflate_gzip(('a'):rep(1000))", ["a" * 1000]),
        ("'no gzip'", [None, "INFLATE: data error"]),
        ("gzip.deflate_gzip('abc'):sub(1, -3)", [None, "INFLATE: buffer error"]),
        ("gzip.deflate_gzip(('a'):rep(2^24 + 1))", [None, "INFLATE: more than 16777216 bytes"]),
    ],
)
def test_bodies_with_gzip(call, text, result):
    found = call(f"local gzip = require('kong.tools.gzip') return gzip.inflate_gzip({text})")
    assert (found if isinstance(found, list) else [found]) == result


def test_pairs_and_copies_go_by_the_metatable_and_json_does_not(call):
    code = """
    local seen = setmetatable({}, { __index = { a = 1 }, __pairs = function() return next, { b = 2 }, nil end })
    local names = {}
    for name in pairs(seen) do names[#names + 1] = name end
    return names, require("kong.tools.table").deep_copy(seen, false), (require("cjson").encode(seen))
    """
    assert call(code) == [["b"], {"b": 2}, "{}"]


def test_json_as_cjson_writes_it(call):
    assert call("return require('cjson').encode({ 1, ngx.null, '\\n\"/\\1é', require('cjson').empty_array, {} })") == (
        '[1,null,"\\n\\"\\/\\u0001é",[],{}]'
    )


@pytest.mark.parametrize(
    ("about", "code", "result"),
    [
        (SEVERAL, "kong.request.get_header('X-A')", "1"),
        (SEVERAL, "kong.request.get_headers()['x_a']", ["1", "2"]),
        (SEVERAL, "kong.request.get_headers(1)", [{"host": "shop.example"}, "truncated"]),
        (SEVERAL, "ngx.var.cookie_t", "2"),
        (POSTED, "kong.request.get_raw_body()", '{"a": [1, {"b": null}], "e": []}'),
        (POSTED, "kong.request.get_body()", [{"a": [1, {"b": None}], "e": {}}, None, "application/json"]),
        (FORM, "kong.request.get_body()", [{"a": ["1", "2"], "b": " x", "c": True}, None, "application/x-www-form-urlencoded"]),
        (FORM, "ngx.req.get_post_args()", {}),
        (PARTS, "kong.request.get_body()", [{"k": "v 1"}, None, "multipart/form-data"]),
        (POSTED, "kong.request.get_body('text/xml')", [None, "unsupported content type 'text/xml'", "text/xml"]),
    ],
)
def test_a_plugin_reads_headers_and_bodies(call, about, code, result):
    assert call(f"return {code}", **about) == result


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("kong.request.get_header(5)", "header name must be a string"),
        ("kong.request.get_headers(0)", "max_headers must be >= 1"),
        ("kong.request.get_query(1001)", "max_args must be <= 1000"),
        ("kong.response.get_status()", "function cannot be called in access phase (only in: response, header_filter, body_filter, log, error, admin_api)"),
        ("kong.service.response.get_status()", "function cannot be called in access phase (only in: response, header_filter, body_filter, log)"),
        ("kong.log.serialize()", "function cannot be called in access phase (only in: log)"),
        ("kong.service.request.set_header(5, 'x')", 'invalid header name "5": got number, expected string'),
        ("kong.service.request.set_header('x', nil)", 'invalid header value for "x": got nil, expected array of string, string, number or boolean'),
        ("kong.service.request.set_header('x', { 1 })", 'invalid header value in array "x": got number, expected string'),
        ("kong.service.request.set_header('x', 'a\\r\\nb: c')", "a header's value is one line, not 'a\\r\\nb: c'"),
        ("kong.service.request.set_method('FETCH')", "invalid method: FETCH"),
        ("kong.service.request.set_scheme('ftp')", "invalid scheme: ftp"),
        ("kong.service.request.set_path('x')", "path must start with /"),
        ("kong.service.request.set_query { [1] = 'x' }", "arg keys must be strings"),
        ("kong.service.request.set_body({}, 'text/xml')", "unsupported content type text/xml"),
        ("kong.service.set_target('x', 1.5)", "port must be an integer"),
        ("kong.service.set_target('x', 70000)", "port must be an integer between 0 and 65535: given 70000"),
        ("kong.response.exit(99)", "code must be a number between 100 and 599"),
        ("kong.response.exit(200, 5)", "body must be a nil, string or table"),
        ("kong.response.error(200)", "code must be a number between 400 and 599"),
        ("kong.client.authenticate()", "either credential or consumer must be provided"),
        ("kong.client.load_consumer('ada')", "cannot load a consumer with an id that is not a uuid"),
        ("kong.log.set_serialize_value('x', print)", "value must be nil, a number, string, boolean or a non-self-referencial table containing numbers, string and booleans"),
        ("ngx.var.remote_addr = 'x'", 'variable "remote_addr" not changeable'),
    ],
)
def test_wrong_use_is_an_error_in_kongs_words(call, code, message):
    ok, error = call(f"return pcall(function() {'return ' if ' = ' not in code else ''}{code} end)")
    assert not ok
    assert error.partition(": ")[2] == message or error == message


CHANGES = [
    ("kong.service.request.set_header('X-A', 'n')", "headers", [("host", "shop.example"), ("x-a", "n"), ("accept", "text/html")]),
    ("kong.service.request.add_header('x-a', true)", "headers", [("host", "shop.example"), ("x-a", "1"), ("x-a", "2"), ("accept", "text/html"), ("x-a", "true")]),
    ("kong.service.request.clear_header('X-A')", "headers", [("host", "shop.example"), ("accept", "text/html")]),
    ("kong.service.request.set_headers { ['x-a'] = { 'p', 'q' }, accept = 5 }", "headers", [("host", "shop.example"), ("x-a", "p"), ("x-a", "q"), ("accept", "5")]),
    ("ngx.req.set_header('x-a', nil)", "headers", [("host", "shop.example"), ("accept", "text/html")]),
    ("kong.service.request.set_method('PUT')", "method", "PUT"),
    ("ngx.req.set_method(ngx.HTTP_PATCH)", "method", "PATCH"),
    ("kong.service.request.set_raw_query('x=1')", "query", "x=1"),
    ("kong.service.request.set_query { b = 'x y', a = { 1, 2 }, c = true }", "query", "a=1&a=2&b=x%20y&c"),
    ("kong.service.request.clear_query_arg('a')", "query", "b=2"),
    ("ngx.var.args = 'y'", "query", "y"),
    ("kong.service.request.set_path('/a b/c')", "path", "/a%20b/c"),
    ("ngx.var.upstream_uri = '/raw'", "path", "/raw"),
    ("kong.service.request.set_scheme('https')", "scheme", "https"),
    ("kong.service.set_target('10.1.1.1', 81)", "target", ("10.1.1.1", 81)),
    ("kong.service.request.set_header('host', 'h')", "host_header", "h"),
    ("kong.service.request.set_raw_body('new')", "body", b"new"),
    ("kong.service.request.set_body({ a = 1 }, 'application/json')", "body", b'{"a":1}'),
    ("kong.service.request.set_body({ a = 1, b = { 'x', 'y' } }, 'application/x-www-form-urlencoded')", "body", b"a=1&b=x&b=y"),
    ("kong.service.request.set_body({ k = 'v' }, 'multipart/form-data; boundary=Q')", "body", b'--Q\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n--Q--\r\n'),
]  # fmt: skip


@pytest.mark.parametrize(("code", "what", "value"), CHANGES, ids=[code for code, _, _ in CHANGES])
def test_a_plugin_changes_the_request_that_goes_upstream(call, code, what, value):
    call(code, headers=[("x-a", "1"), ("x-a", "2"), ("accept", "text/html")])
    context = call.context
    now = {
        "headers": list(context.request.headers),
        "method": context.request.method,
        "query": context.request.query,
        "body": context.request.body,
        "path": context.upstream.path,
        "scheme": context.upstream.scheme,
        "target": (context.upstream.host, context.upstream.port),
        "host_header": context.upstream.host_header,
    }
    assert now[what] == value


EXITS = [
    ("kong.response.exit(403)", 403, [("content-length", "0")], b""),
    ("kong.response.exit(200, 'text', { ['x-a'] = { '1', '2' } })", 200, [("x-a", "1"), ("x-a", "2"), ("content-length", "4")], b"text"),
    ("kong.response.exit(418, { message = 'tea' })", 418, [("content-type", "application/json; charset=utf-8"), ("content-length", "17")], b'{"message":"tea"}'),
    ("kong.response.set_header('x-before', '1') kong.response.exit(204)", 204, [("x-before", "1"), ("content-length", "0")], b""),
    ("kong.response.error(404)", 404, [("content-type", "application/json; charset=utf-8"), ("content-length", "78")], f'{{\n  "message":"Not found",\n  "request_id":"{REQUEST_ID}"\n}}'.encode()),
    ("kong.response.error(500, 'no', { ['Content-Type'] = 'text/plain' })", 500, [("content-type", "text/plain"), ("content-length", "48")], f"no\nrequest_id: {REQUEST_ID}\n".encode()),
    ("ngx.status = 201 ngx.header['x-a'] = 'b' ngx.print('made ', 1, { 'x' }) ngx.exit(ngx.OK)", 201, [("x-a", "b")], b"made 1x"),
    ("ngx.exit(ngx.HTTP_FORBIDDEN)", 403, [], b""),
    ("ngx.redirect('/there')", 302, [("location", "/there")], b""),
    ("coroutine.wrap(function() pcall(kong.response.exit, 403) end)() kong.response.exit(500)", 403, [("content-length", "0")], b""),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status", "headers", "body"), EXITS, ids=[code for code, *_ in EXITS])
def test_a_plugin_answers_and_nothing_after_it_runs(call, code, status, headers, body):
    call(f"{code} kong.service.request.set_header('not', 'reached')")
    ended = call.context.exit
    assert (ended.status, [(n.decode(), v.decode()) for n, v in ended.headers], ended.body) == (status, headers, body)
    assert call.context.request.headers.get("not") is None


def test_a_request_of_grpc_is_answered_in_headers(call):
    about = {"headers": {"content-type": "application/grpc"}}
    world = World()
    context = request(world, **about)
    context.request.http_version = 2.0
    call("kong.response.error(403, 'no')", context=context)
    assert [(n.decode(), v.decode()) for n, v in context.exit.headers] == [
        ("content-type", "application/grpc"),
        ("grpc-status", "7"),
        ("grpc-message", "PermissionDenied"),
        ("content-length", "0"),
    ]


RESPONSES = [
    ("return kong.response.get_status(), kong.response.get_source()", [201, "service"], None),
    ("return kong.response.get_header('X-UP'), kong.response.get_headers().content_type", ["1", "text/plain"], None),
    ("return kong.service.response.get_status(), kong.service.response.get_header('x-up')", [201, "1"], None),
    ("return ngx.var.sent_http_content_type, ngx.var.upstream_http_x_up, ngx.status", ["text/plain", "1", 201], None),
    ("return (ngx.resp.get_headers(0, true))", {"Content-Type": "text/plain", "X-Up": "1"}, None),
    ("kong.response.set_header('x-up', 2)", None, [("content-type", "text/plain"), ("x-up", "2")]),
    ("kong.response.add_header('x-up', { '2', '3' })", None, [("content-type", "text/plain"), ("x-up", "1"), ("x-up", "2"), ("x-up", "3")]),
    ("kong.response.clear_header('X-Up')", None, [("content-type", "text/plain")]),
    ("kong.response.set_headers { ['transfer-encoding'] = 'x', ['x-n'] = true }", None, [("content-type", "text/plain"), ("x-up", "1"), ("x-n", "true")]),
    ("ngx.header.content_type = nil ngx.header['X-L'] = { 'a', 'b' }", None, [("x-up", "1"), ("x-l", "a"), ("x-l", "b")]),
    ("kong.response.set_status(404) return ngx.status", 404, None),
]  # fmt: skip


@pytest.mark.parametrize(("code", "result", "headers"), RESPONSES, ids=[code for code, *_ in RESPONSES])
def test_a_plugin_reads_and_changes_the_response(call, code, result, headers):
    assert call(code, "header_filter") == result
    if headers is not None:
        assert list(call.context.response.headers) == headers


def test_headers_of_access_come_before_those_of_upstream(call):
    call("kong.response.set_header('x-up', 'mine') ngx.header['x-new'] = 1")
    respond(call.context, 200, {"x-up": "theirs"})
    call("return 1", "header_filter", call.context)
    assert list(call.context.response.headers) == [("x-up", "mine"), ("x-new", "1"), ("x-up", "theirs")]


def through_the_body(call, code, *parts):
    context = request(World())
    respond(context)
    sent = []
    for number, part in enumerate(parts, 1):
        context.response.body, context.response.last = part, number == len(parts)
        call(code, "body_filter", context)
        sent.append(context.response.body)
    return sent


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        ("return ngx.arg[1]", [b"one", b"two", b"\xff"]),
        ("ngx.arg[1] = ngx.arg[1]:upper()", [b"ONE", b"TWO", b"\xff"]),
        ("ngx.arg[1] = nil", [b"", b"", b""]),
        ("local all = kong.response.get_raw_body() if all then kong.response.set_raw_body('<' .. all .. '>') end", [b"", b"", b"<onetwo\xff>"]),
        ("kong.response.get_raw_body()", [b"", b"", b"onetwo\xff"]),
    ],
)
def test_a_plugin_changes_the_body_of_the_response(call, code, sent):
    assert through_the_body(call, code, b"one", b"two", b"\xff") == sent


def test_a_plugin_of_the_phase_response_has_upstreams_body(call):
    context = request(World())
    respond(context, 200, {"content-type": "application/json"})
    context.service_response.body = b'{"a": 1}'
    assert call("return kong.service.response.get_raw_body(), kong.service.response.get_body().a", "response", context) == ['{"a": 1}', 1]
    ok, error = call("return pcall(kong.service.response.get_raw_body)", "header_filter")
    assert not ok
    assert "service body is only available with buffered proxying" in error


def test_what_is_shared_is_shared_with_others_than_lua(call):
    context = request(World())
    context.shared["from_go"] = {"a": [1, "é"]}
    assert call("local go = kong.ctx.shared.from_go kong.ctx.shared.seen = go.a[2] kong.ctx.shared.f = print kong.ctx.shared.from_go = nil return #go.a", context=context) == 2
    assert context.shared == {"seen": "é", "result": 2}
    assert call("return type(kong.ctx.shared.f)", context=context) == "function"


def test_a_plugin_keeps_things_for_itself(call):
    context = request(World())
    assert call("kong.ctx.plugin.n = 5 ngx.ctx.m = 6 return 1", "rewrite", context) == 1
    assert call("return kong.ctx.plugin.n, ngx.ctx.m", "access", context) == [5, 6]
    assert call("return kong.ctx.plugin.n, ngx.ctx.m") == [None, None]


def test_lines_of_the_log_name_the_plugin(call):
    call("kong.log.err('a', 1, nil, true, ngx.null) kong.log('n') kong.log.debug({} ~= nil) ngx.log(ngx.WARN, 'w') kong.log.inspect({ a = { 1 } })")
    assert call.world.lines == [
        "error: [probe] a1niltruenull",
        "info: [probe] n",
        "debug: [probe] true",
        "warn: w",
        "debug: [probe] { a = { 1 } }",
    ]


def test_what_the_log_shows_can_be_changed(call):
    context = request(World(), headers={"authorization": "secret"})
    call("kong.log.set_serialize_value('service.extra', { 1, 'x' }) kong.log.set_serialize_value('client_ip', nil) kong.log.set_serialize_value('a\\\\.b', 1, { mode = 'add' }) kong.log.set_serialize_value('none', 1, { mode = 'replace' })", context=context)  # fmt: skip
    shown = call("return kong.log.serialize()", "log", context)
    assert shown["service"] == {**SERVICE, "extra": [1, "x"]}
    assert (shown["a.b"], "none" in shown, "client_ip" in shown) == (1, False, False)
    assert shown["request"]["headers"] == {"host": "shop.example", "authorization": "REDACTED"}
    assert (shown["request"]["url"], shown["response"]["status"]) == ("http://shop.example:8000/orders/7?b=2&a=1&a=3", 201)
    assert (shown["upstream_uri"], shown["started_at"], shown["source"]) == ("/orders/7?b=2&a=1&a=3", 1_700_000_000_250, "upstream")


DICTIONARY = [
    ("return d:set('a', 5), d:get('a')", [True, 5]),
    ("return d:get('none')", None),
    ("return d:add('a', 1)", [False, "exists", False]),
    ("return d:replace('none', 1)", [False, "not found", False]),
    ("return d:incr('n', 2, 10), d:incr('n', 1)", [12, 13, None]),
    ("return d:incr('none', 1)", [None, "not found"]),
    ("d:set('f', 'x', 0, 7) return d:get('f')", ["x", 7]),
    ("d:set('t', 'x', 100) return d:ttl('t') > 99, d:ttl('a')", [True, 0]),
    ("d:set('a', nil) return d:get('a')", None),
    ("return d:rpush('l', 'y'), d:lpush('l', 'x'), d:llen('l'), d:rpop('l'), d:lpop('l'), d:lpop('l')", [1, 2, 2, "y", "x", None]),
    ("d:flush_all() return d:get('n'), #d:get_keys()", [None, 0]),
    ("return d:set('big', ('x'):rep(6 * 2 ^ 20))", [False, "no memory", False]),
    ("return d:capacity(), d:free_space() <= d:capacity()", [5 << 20, True]),
]


@pytest.mark.parametrize(("code", "result"), DICTIONARY, ids=[code for code, _ in DICTIONARY])
def test_shared_dictionaries(call, code, result):
    assert call(f"local d = ngx.shared.kong_secrets {code}") == result


def test_a_shared_dictionary_drops_what_was_not_used(call):
    code = """
    local d = ngx.shared.kong_healthchecks
    for i = 1, 6 do d:set("k" .. i, ("x"):rep(2 ^ 20)) d:get("k1") end
    return d:get("k1") ~= nil, d:get("k2") == nil, d:get("k6") ~= nil
    """
    assert call(code) == [True, True, True]


ADA = {"id": "c0000000-0000-4000-8000-000000000001", "username": "ada", "custom_id": "Ä1"}
ENTITIES = {
    "consumers": [ADA],
    "keyauth_credentials": [{"id": "k1", "key": "sesame", "consumer": {"id": ADA["id"]}}, {"id": "k2", "key": "two", "consumer": "ada"}],
    "upstreams": [{"id": "u1", "name": "blue"}],
}


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (f"(kong.client.load_consumer('{ADA['id']}'))", ADA),
        ("kong.client.load_consumer('ada', true).custom_id", "Ä1"),
        ("(kong.client.load_consumer('bob', true))", None),
        ("kong.db.keyauth_credentials:select_by_key('two').consumer", {"id": ADA["id"]}),
        ("kong.db.keyauth_credentials:select_by_key('none')", None),
        ("kong.db.keyauth_credentials:cache_key('a')", "keyauth_credentials:a:::::0dc6f45b-8f8d-40d2-a504-473544ee190b"),
        ("kong.db.consumers:insert({})", [None, "cannot create, update or delete entities: the configuration is declarative"]),
        ("kong.db.no_such_collection:select({ id = 'x' })", None),
        ("kong.service.set_upstream('blue')", True),
        ("kong.service.set_upstream('red')", [None, "could not find an Upstream named 'red'"]),
    ],
)
def test_entities_of_the_configuration(call, code, result):
    assert call(f"return {code}", entities=ENTITIES) == result


def test_each_of_a_consumer(call):
    code = f"local ids = {{}} for row in kong.db.keyauth_credentials:each_for_consumer({{ id = '{ADA['id']}' }}) do ids[#ids + 1] = row.id end return ids"
    assert call(code, entities=ENTITIES) == ["k1", "k2"]


def test_the_cache_asks_once_for_each_configuration(call):
    code = """
    local value, err, level = kong.cache:get("key", nil, function(x) return x .. kong.db.consumers:select_by_username("ada").id:sub(1, 1) end, "v")
    return value, err, level
    """
    entities = {**ENTITIES}
    assert call(code, entities=entities) == ["vc", None, 3]
    assert call(code, entities=entities) == ["vc", None, 1]
    assert call(code, entities={**ENTITIES}) == ["vc", None, 3]


def test_authenticated(call):
    context = request(World())
    assert call("kong.client.authenticate({ id = '1', username = 'x' }, { id = '2' }) return kong.client.get_consumer().username, kong.client.get_credential().id", context=context) == ["x", "2"]
    assert (context.consumer, context.credential) == ({"id": "1", "username": "x"}, {"id": "2"})
    other = request(World())
    other.consumer = ADA
    assert call("return kong.client.get_consumer().username", context=other) == "ada"


def test_a_response_that_is_not_upstreams(call):
    context = request(World())
    context.response = Response(503, Headers([]), "error")
    assert call("return kong.response.get_source(), kong.service.response.get_status()", "header_filter", context) == ["error", None]
