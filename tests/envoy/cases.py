"""What to ask Envoy, as data. A case's name says its subject first: headers, body, action, resume, local, trap, ...

Most run `probe`, whose configuration is a script (its language is described at the top of tests/filters/c/probe.c).

Left out, since Envoy 1.40 crashes: a local response from on_log or on_done, continue_stream(1) before there is a
response, touching a body held by statuses 2 or 3 outside of its callback.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from proxywasm_host.protobuf import field
from tests.envoy.rig import Case, Filter, Request, Response

FILTERS = pathlib.Path(__file__).resolve().parents[1] / "filters"


def probe(script: str = "", version: str = "0_2_1", **options: Any) -> Filter:
    return Filter(FILTERS / f"c/probe_{version}.wasm", config=script, **options)


def rust(name: str, config: str = "", **options: Any) -> Filter:
    return Filter(FILTERS / f"rust/{name}.wasm", config=config, **options)


def lines(*instructions: str) -> str:
    return "".join(instruction + "\n" for instruction in instructions)


def words(text: str) -> list[str]:
    return text.split()


CASES: list[Case] = []


def add(
    name: str,
    *filters: Filter | str,
    request: Request = Request(),  # noqa: B008, frozen
    response: Response = Response(chunks=[b"hello"]),  # noqa: B008, frozen
    **more: Any,
) -> None:
    """A script stands for a probe that runs it."""
    chain = [f if isinstance(f, Filter) else probe(f) for f in filters]
    CASES.append(Case(name, chain, request, response, **more))


CHUNKS = [b"aaa", b"bbbb", b"ccccc"]
GET = Request()
POST = Request("POST", "/post", chunks=CHUNKS)
POST_ONE = Request("POST", "/post", chunks=[b"abcde"])
POST_TRAILERS = Request("POST", "/post", chunks=[b"aaa", b"bbbb"], trailers=[("t", "1"), ("T", "2")])
GRPC = Request("POST", "/s/m", [("content-type", "application/grpc"), ("te", "trailers")], [b"abc"])
STREAMED = Response(headers=[("x-up", "1")], chunks=CHUNKS)
WITH_TRAILERS = Response(chunks=[b"xxx", b"yyyy"], trailers=[("u", "1"), ("U", "2")])

# A filter that looks at everything, to stand beside the one that does something.
WATCH = lines(
    "@on_request_headers", "get_header_map_pairs 0",
    "@on_request_body", "get_buffer_bytes 0 0 1000",
    "@on_request_trailers", "get_header_map_pairs 1",
    "@on_response_headers", "get_header_map_pairs 2",
    "@on_response_body", "get_buffer_bytes 1 0 1000",
    "@on_response_trailers", "get_header_map_pairs 3",
    "@on_log", "get_property response%00code", "get_property response%00code_details",
    "get_header_map_value 2 :status",
)  # fmt: skip
HOLD = 0.15  # patience where nothing is expected

# What a filter is shown -----------------------------------------------------------------------------------------------

HEADERS = [("B", "1"), ("a", "2"), ("B", "3"), ("c", "4"), ("X-Empty", ""), ("x-trim", "  y ")]
INLINE = [
    ("User-Agent", "a"), ("User-Agent", "b"), ("Accept", "1"), ("x", "1"), ("Accept", "2"), ("Cookie", "c=1"),
    ("Cookie", "d=2"), ("Via", "v1"), ("X-Forwarded-For", "1"), ("x-forwarded-for", "2"), ("Content-Type", "t"),
]  # fmt: skip
HOP = [("Connection", "x-hop, foo"), ("x-hop", "1"), ("Keep-Alive", "3"), ("Proxy-Connection", "x"), ("x", "y")]
add("sees: GET", WATCH, WATCH, request=Request("GET", "/p?q=1", HEADERS))
add("sees: POST with content-length", WATCH, request=POST_ONE)
add("sees: POST in chunks", WATCH, request=POST, response=STREAMED)
add("sees: POST in chunks with trailers", WATCH, WATCH, request=POST_TRAILERS, response=WITH_TRAILERS)
add("sees: POST with content-length 0", WATCH, request=Request("POST", "/", [("content-length", "0")]))
add("sees: POST with an empty chunked body", WATCH, request=Request("POST", "/", [("transfer-encoding", "chunked")]))
add("sees: repeated headers", WATCH, request=Request("GET", "/", INLINE))
add("sees: hop-by-hop headers", WATCH, request=Request("GET", "/", HOP))
add("sees: host among the headers", WATCH, request=Request("GET", "/", [("x", "1"), ("HOST", "Other.Test:81")]))
add("sees: HEAD", WATCH, request=Request("HEAD"), response=Response(200, [("content-length", "5")]))
for status in (204, 304, 404, 500, 599):
    add(f"sees: response {status}", WATCH, response=Response(status, [("etag", "x")]))
REPEATED = [
    ("Set-Cookie", "a"),
    ("Vary", "1"),
    ("Set-Cookie", "b"),
    ("Server", "me"),
    ("Vary", "2"),
    ("X-Y", "1"),
    ("x-y", "2"),
]
add("sees: repeated response headers", WATCH, response=Response(200, REPEATED, [b"x"]))
add("sees: two requests on one connection", WATCH, repeat=2, same_connection=True)

# Header maps ----------------------------------------------------------------------------------------------------------


def headers(name: str, *instructions: str, request: Request = Request("GET", "/p?q=1", HEADERS)) -> None:  # noqa: B008
    add(f"headers: {name}", lines("@on_request_headers", *instructions, "get_header_map_pairs 0"), request=request)


def response_headers(name: str, *instructions: str) -> None:
    script = lines("@on_response_headers", *instructions, "get_header_map_pairs 2")
    add(f"response headers: {name}", script, response=Response(200, [("A", "1"), ("b", "2"), ("A", "3")], [b"xxx"]))


NAMES = [
    "b",
    "B",
    "x-empty",
    "nope",
    '""',
    "host",
    ":authority",
    ":path",
    ":method",
    ":scheme",
    ":status",
    "X-Forwarded-Proto",
]
headers("get", "get_header_map_size 0", *(f"get_header_map_value 0 {n}" for n in NAMES))
headers(
    "add",
    "add_header_map_value 0 B X",
    "add_header_map_value 0 NEW y",
    'add_header_map_value 0 e ""',
    "get_header_map_size 0",
)
headers(
    "replace", "replace_header_map_value 0 B X", "replace_header_map_value 0 New Y", 'replace_header_map_value 0 a ""'
)
headers("remove", "remove_header_map_value 0 B", "remove_header_map_value 0 nope", "get_header_map_value 0 b")
headers(
    "empty name",
    'add_header_map_value 0 "" x',
    'replace_header_map_value 0 "" y',
    'get_header_map_value 0 ""',
    'remove_header_map_value 0 ""',
)
for i, (pseudo, value) in enumerate(
    {":path": "/new?x", ":method": "PUT", ":authority": "other", ":scheme": "https", "host": "h2"}.items()
):
    headers(f"replace {pseudo}", f"replace_header_map_value 0 {pseudo} {value}", f"get_header_map_value 0 {pseudo}")
    if i != 1:
        headers(f"add {pseudo}", f"add_header_map_value 0 {pseudo} X", f"get_header_map_value 0 {pseudo}")
for count in (1, 2, 4):
    for pseudos in combinations((":scheme", ":authority", ":method", ":path"), count):
        headers(f"remove {' '.join(pseudos)}", *(f"remove_header_map_value 0 {pseudo}" for pseudo in pseudos))
headers("unknown pseudo header", "add_header_map_value 0 :foo bar", "get_header_map_value 0 :foo")
headers(
    "values with odd bytes",
    "add_header_map_value 0 hi %ff%fe",
    "add_header_map_value 0 tab a%09b",
    "get_header_map_value 0 hi",
)
headers(
    "add what exists once",
    *(
        f"add_header_map_value 0 {n} {v}"
        for n in ("user-agent", "cookie", "content-type", "via", "x-request-id", "x-other")
        for v in "12"
    ),
    *(f"get_header_map_value 0 {n}" for n in ("user-agent", "cookie", "content-type", "x-other")),
)
PAIRS = "z=1&:path=/s&:method=POST&:authority=au&x-forwarded-proto=http&Z=2&:scheme=http"
headers("set all", f"set_header_map_pairs 0 {PAIRS}", "get_header_map_size 0", "get_header_map_value 0 z")
headers("set all, repeated", f"set_header_map_pairs 0 {PAIRS}&user-agent=1&:path=/t&user-agent=2&cookie=a&cookie=b")
for garbage in (
    "pairs:",
    '""',
    "raw:garbage",
    "raw:%01%00%00%00%01%00%00%00%01%00%00%00a%00b%00x",
    "raw:%01%00%00%00%01%00%00%00%01%00%00%00a1b2",
):
    headers(
        f"set garbage {garbage}",
        f"set_header_map_pairs 0 {garbage}",
        "get_header_map_size 0",
        "get_header_map_pairs 0",
        "set_header_map_pairs 0 " + PAIRS,
    )
headers(
    "of another phase",
    *(f"get_header_map_pairs {m}" for m in (1, 2, 3, 4, 5, 6, 7, 8, -1)),
    *(
        f"{call} {m} {rest}".rstrip()
        for m in (1, 2, 6, 8)
        for call, rest in {
            "get_header_map_value": "x", "get_header_map_size": "", "add_header_map_value": "x y",
            "replace_header_map_value": "x y", "remove_header_map_value": "x", "set_header_map_pairs": "x=y",
        }.items()
    ),
)  # fmt: skip
response_headers(
    "get",
    "get_header_map_size 2",
    "get_header_map_value 2 a",
    "get_header_map_value 2 :status",
    "get_header_map_value 0 :path",
)
response_headers("replace", "replace_header_map_value 2 A X", "replace_header_map_value 2 new y")
response_headers(
    "add",
    "add_header_map_value 2 A X",
    "add_header_map_value 2 vary y",
    "add_header_map_value 2 Vary z",
    "add_header_map_value 2 :foo x",
)
response_headers("remove", "remove_header_map_value 2 A", "remove_header_map_value 2 content-length")
response_headers("status 404", "replace_header_map_value 2 :status 404")
response_headers("status garbage", "replace_header_map_value 2 :status abc")
response_headers("status removed", "remove_header_map_value 2 :status")
response_headers("set all", "set_header_map_pairs 2 z=1&:status=202&y=2&Z=3")
response_headers("set garbage", "set_header_map_pairs 2 raw:xx")
add(
    "headers: in every callback",
    "".join(
        lines(
            f"@on_{where}",
            *(f"get_header_map_value {m} x\nget_header_map_pairs {m}\nget_header_map_size {m}" for m in range(4)),
        )
        for where in ("request_body", "request_trailers", "response_body", "response_trailers", "done", "delete")
    ),
    request=POST_TRAILERS,
    response=WITH_TRAILERS,
)
add(
    "headers: in on_log",
    lines(
        "@on_log", "get_header_map_pairs 0", "get_header_map_value 0 :path", "get_header_map_value 0 nope",
        "add_header_map_value 0 a b",
        "replace_header_map_value 2 a b", "remove_header_map_value 2 a", "set_header_map_pairs 2 a=b",
        "get_header_map_size 0",
        "get_header_map_size 2", "get_header_map_pairs 1", "get_header_map_value 1 t", "get_header_map_pairs 3",
        "get_header_map_value 3 u",
        "get_property request%00path", "get_property response%00code",
    ),
    request=POST_TRAILERS,
    response=WITH_TRAILERS,
)  # fmt: skip
add(
    "chain: the next filter sees changes",
    lines("@on_request_headers", "add_header_map_value 0 x-one 1", "remove_header_map_value 0 a"),
    WATCH,
    request=Request("GET", "/", HEADERS),
)
add(
    "chain: three filters",
    *(
        lines(
            "@on_request_headers",
            f"add_header_map_value 0 x-order {n}",
            "@on_response_headers",
            f"add_header_map_value 2 x-order {n}",
        )
        for n in "abc"
    ),
    WATCH,
)

# Bodies ---------------------------------------------------------------------------------------------------------------


def statuses(which: int, *returned: int, last: Sequence[str] = ()) -> str:
    """Looks at the body in each callback, does `last` in the last one, returns the given statuses."""
    script, name = "", ("request", "response")[which]
    for i, status in enumerate(returned, 1):
        script += lines(f"@on_{name}_body/{i}", f"get_buffer_status {which}", f"get_buffer_bytes {which} 0 1000")
        script += lines(*(last if i == len(returned) else ()), f"return {status}")
    return script


for which, side in enumerate(("request", "response")):
    for returned in (
        (0, 0, 0, 0),
        (1, 1, 1, 0),
        (1, 0, 1, 0),
        (1, 1, 0, 0),
        (2, 2, 2, 0),
        (2, 0, 2, 0),
        (3, 3, 3, 0),
        (3, 0, 4, 0),
        (0, 0, 3, 0),
        (1, 2, 3, 0),
    ):
        chain = [statuses(which, *returned), WATCH]
        add(
            f"body: {side} statuses {returned}",
            *(chain if which == 0 else chain[::-1]),
            request=POST,
            response=STREAMED,
        )
    for status in (1, 2, 3, 4):
        replace = [f"set_buffer_bytes {which} 0 1000 REPLACED", f"get_buffer_bytes {which} 0 1000"]
        add(
            f"body: {side} held by {status}, then replaced",
            statuses(which, status, status, status, 0, last=replace),
            request=POST,
            response=STREAMED,
        )
    add(f"body: {side} held for ever", statuses(which, 1, 1, 1, 1), request=POST, response=STREAMED, patience=HOLD)
    add(
        f"body: {side} held by 1, trailers let it go",
        statuses(which, 1, 1),
        WATCH,
        request=POST_TRAILERS,
        response=WITH_TRAILERS,
    )
    add(
        f"body: {side} held by 2, trailers let it go",
        statuses(which, 2, 2),
        WATCH,
        request=POST_TRAILERS,
        response=WITH_TRAILERS,
    )
    hold_trailers = lines(
        f"@on_{side}_body",
        "return 1",
        f"@on_{side}_trailers",
        f"get_buffer_bytes {which} 0 99",
        f"set_buffer_bytes {which} 0 99 new",
    )
    add(f"body: {side} changed in trailers", hold_trailers, request=POST_TRAILERS, response=WITH_TRAILERS)
    no_length = lines(f"@on_{side}_headers", f"remove_header_map_value {2 * which} content-length")
    for kind, where in {
        "prepend": "0 0 X", "append": "100 0 X", "append at the end": "5 0 X", "append far": "-1 0 X",
        "replace": "0 100 X", "replace exactly": "0 5 X",
        "replace far": "0 -1 LONGER", "clear": '0 5 ""', "first": "0 2 X", "middle": "2 1 X", "insert": "2 0 X",
        "tail": "3 100 X", "nothing": '0 0 ""',
    }.items():  # fmt: skip
        change = lines(
            f"@on_{side}_body/1",
            f"set_buffer_bytes {which} {where}",
            f"get_buffer_bytes {which} 0 100",
            f"get_buffer_status {which}",
        )
        chain = [no_length + change, WATCH]
        add(
            f"body: {side} {kind}",
            *(chain if which == 0 else chain[::-1]),
            request=POST_ONE,
            response=Response(200, [], [b"abcde"]),
        )
    at_end = lines(
        f"@on_{side}_body/eos",
        f"get_buffer_bytes {which} 0 9",
        f"set_buffer_bytes {which} 0 0 end",
        f"get_buffer_bytes {which} 0 9",
    )
    add(
        f"body: {side} added at the end",
        *([at_end, WATCH] if which == 0 else [WATCH, at_end]),
        request=POST,
        response=STREAMED,
    )
RANGES = ("0 2", "2 2", "2 100", "5 1", "6 1", "0 0", "-1 1", "1 -1", "-1 -1")
add("body: ranges", lines("@on_request_body/1", *(f"get_buffer_bytes 0 {r}" for r in RANGES)), request=POST_ONE)
add(
    "body: buffers in every callback",
    "".join(
        lines(
            f"@on_{where}",
            *(f"get_buffer_status {b}" for b in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1)),
            "get_buffer_bytes 0 0 9",
            "get_buffer_bytes 4 0 9",
            "get_buffer_bytes 9 0 9",
        )
        for where in (
            "request_headers",
            "request_body/1",
            "response_headers",
            "response_body/1",
            "log",
            "done",
            "delete",
        )
    ),
    request=POST_ONE,
)
add(
    "body: set in the wrong place",
    lines(
        "@on_request_headers",
        *(f"set_buffer_bytes {b} 0 0 x" for b in range(10)),
        "@on_response_headers",
        "set_buffer_bytes 1 0 0 x",
    ),
    request=POST_ONE,
)
add(
    "body: over the limit",
    lines("@on_request_body", "return 1"),
    WATCH,
    request=Request("POST", "/", chunks=[b"a" * 600] * 3),
    buffer_limit=1024,
)
add(
    "body: response over the limit",
    lines("@on_response_body", "return 1"),
    response=Response(chunks=[b"a" * 600] * 3),
    buffer_limit=1024,
)

# Results of headers callbacks -----------------------------------------------------------------------------------------

for returned_status in (0, 1, 2, 3, 4, 5, -1):
    for allow in (False, True):
        allowed: dict[str, Any] = {"allow_on_headers_stop_iteration": allow}
        patience = 2.0 if returned_status in (0, 2) or (returned_status == 1 and allow) else HOLD
        name = f"headers return {returned_status}" + (", stop iteration allowed" if allow else "")
        script = f"@on_request_headers\nreturn {returned_status}\n" + WATCH.replace(
            "@on_request_headers\nget_header_map_pairs 0\n", ""
        )
        add(
            f"action: request {name}",
            probe(script, **allowed),
            WATCH,
            request=POST_TRAILERS,
            response=WITH_TRAILERS,
            patience=patience,
        )
        script = f"@on_response_headers\nreturn {returned_status}\n" + WATCH.replace(
            "@on_response_headers\nget_header_map_pairs 2\n", ""
        )
        add(f"action: response {name}", WATCH, probe(script, **allowed), response=WITH_TRAILERS, patience=patience)
add(
    "action: request trailers return 1", "@on_request_trailers\nreturn 1\n", WATCH, request=POST_TRAILERS, patience=HOLD
)
add(
    "action: request trailers return 2", "@on_request_trailers\nreturn 2\n", WATCH, request=POST_TRAILERS, patience=HOLD
)
IN_BODY = lines(
    "@on_request_headers", "return 1", "@on_request_body", "get_header_map_value 0 :path",
    "add_header_map_value 0 x-in-body 1",
    "get_property request%00path", "return 1", "@on_request_body/eos", "add_header_map_value 0 x-in-body 2",
)  # fmt: skip
add(
    "action: headers changed from the body callback",
    probe(IN_BODY, allow_on_headers_stop_iteration=True),
    WATCH,
    request=POST,
)
IN_RESPONSE_BODY = lines(
    "@on_response_headers", "return 1", "@on_response_body", "get_header_map_value 2 :status",
    "add_header_map_value 2 x-in-body 1", "return 1",
    "@on_response_body/eos", "replace_header_map_value 2 content-length 7", "set_buffer_bytes 1 0 100 changed",
)  # fmt: skip
add(
    "action: response headers changed from the body callback",
    WATCH,
    probe(IN_RESPONSE_BODY, allow_on_headers_stop_iteration=True),
    response=STREAMED,
)

# Resuming -------------------------------------------------------------------------------------------------------------


def held(callback: str, status: int, *instructions: str) -> str:
    """Returns `status` from a callback, then does `instructions` to the stream in a tick when all has arrived."""
    hold = lines(f"@{callback}", "set_tick_period_milliseconds 80", f"return {status}")
    return hold + lines("@on_tick", "set_tick_period_milliseconds 0", "set_effective_context $stream", *instructions)


REST = WATCH.replace("@on_request_headers\nget_header_map_pairs 0\n", "").replace(
    "@on_response_headers\nget_header_map_pairs 2\n", ""
)
for status in (1, 3, 4):
    add(
        f"resume: request headers held by {status}",
        held("on_request_headers", status, "continue_stream 0") + REST,
        WATCH,
        request=POST,
    )
    add(
        f"resume: response headers held by {status}",
        WATCH,
        held("on_response_headers", status, "continue_stream 1") + REST,
        response=STREAMED,
    )
    if status < 4:
        add(
            f"resume: whole body held by {status}",
            held("on_request_body", status, "continue_stream 0"),
            WATCH,
            request=POST,
        )
add("resume: whole body held by 2", held("on_request_body", 2, "continue_stream 0"), WATCH, request=POST)
add("resume: GET", held("on_request_headers", 1, "continue_stream 0"), WATCH)
add(
    "resume: request with trailers",
    held("on_request_headers", 1, "continue_stream 0") + REST,
    WATCH,
    request=POST_TRAILERS,
)
add(
    "resume: response with trailers",
    WATCH,
    held("on_response_headers", 1, "continue_stream 1") + REST,
    response=WITH_TRAILERS,
)
add(
    "resume: response without a body",
    WATCH,
    held("on_response_headers", 1, "continue_stream 1"),
    response=Response(204),
)
add("resume: request trailers", held("on_request_trailers", 1, "continue_stream 0"), WATCH, request=POST_TRAILERS)
CHANGE = (
    "get_header_map_value 0 :path",
    "add_header_map_value 0 late 1",
    "get_buffer_bytes 0 0 100",
    "continue_stream 0",
    "get_header_map_value 0 :path",
    "continue_stream 0",
)
add(
    "resume: headers changed meanwhile",
    held("on_request_headers", 1, *CHANGE) + "@on_request_body\nget_header_map_value 0 :path\n",
    WATCH,
    request=POST,
)
CHANGE_BODY = (
    "get_buffer_bytes 0 0 100",
    "set_buffer_bytes 0 0 0 pre",
    "add_header_map_value 0 late 1",
    "continue_stream 0",
)
add("resume: body held and changed meanwhile", held("on_request_body", 1, *CHANGE_BODY), WATCH, request=POST)
CHANGE_RESPONSE = ("get_buffer_bytes 1 0 100", "set_buffer_bytes 1 0 100 new", "continue_stream 1")
add(
    "resume: response body held and changed meanwhile",
    WATCH,
    held("on_response_body", 1, *CHANGE_RESPONSE),
    response=STREAMED,
)
CHANGE_HEADERS = ("get_header_map_value 2 :status", "add_header_map_value 2 late 1", "continue_stream 1")
add(
    "resume: response headers changed meanwhile",
    WATCH,
    held("on_response_headers", 1, *CHANGE_HEADERS),
    response=STREAMED,
)
add(
    "resume: continue_stream of other kinds",
    lines("@on_request_headers", *(f"continue_stream {k}" for k in (2, 3, 4, -1)), "get_header_map_value 0 :path"),
)
add(
    "resume: continue_stream in the body callback",
    lines("@on_request_body/1", "continue_stream 0", "return 1"),
    WATCH,
    request=POST,
)
add("resume: held for ever", "@on_request_headers\nreturn 1\n", WATCH, patience=HOLD)
add(
    "resume: the client gives up",
    "@on_request_headers\nreturn 1\n",
    WATCH,
    request=Request("POST", "/", chunks=CHUNKS, stop=1),
    linger=0.02,
)
add(
    "resume: the client gives up amid the body",
    WATCH,
    WATCH,
    request=Request("POST", "/", [("content-length", "10")], [b"abc"], stop=1),
    linger=0.02,
)

# Local responses ------------------------------------------------------------------------------------------------------

LOCAL = "send_local_response 403 my%20details nope x-a=1&x-a=2 -1"
for where, request, response in (
    ("on_request_headers", POST, STREAMED),
    ("on_request_body/1", POST, STREAMED),
    ("on_request_body/eos", POST, STREAMED),
    ("on_request_trailers", POST_TRAILERS, STREAMED),
    ("on_response_headers", GET, STREAMED),
    ("on_response_body/1", GET, STREAMED),
    ("on_response_trailers", GET, WITH_TRAILERS),
):
    add(
        f"local: in {where} of the second of three",
        WATCH,
        lines(f"@{where}", LOCAL) + WATCH,
        WATCH,
        request=request,
        response=response,
    )
add("local: and pause", WATCH, lines("@on_request_headers", LOCAL, "return 1"), WATCH)
add("local: twice", WATCH, lines("@on_request_headers", LOCAL, 'send_local_response 500 second b2 "" -1'))
SECOND = "send_local_response 500 second b2 y=1 -1"
add("local: again in on_response_headers", WATCH, lines("@on_request_headers", LOCAL, "@on_response_headers", SECOND))
add(
    "local: again in on_response_headers of another",
    lines("@on_response_headers", SECOND) + WATCH,
    lines("@on_request_headers", LOCAL),
)
add("local: again in on_response_body", WATCH, lines("@on_request_headers", LOCAL, "@on_response_body", SECOND))
CHANGED = lines(
    "@on_response_headers",
    "replace_header_map_value 2 :status 201",
    "add_header_map_value 2 y z",
    "replace_header_map_value 2 content-length 7",
)
add(
    "local: changed by the one before",
    CHANGED + lines("@on_response_body", "set_buffer_bytes 1 0 100 changed"),
    lines("@on_request_headers", LOCAL),
)
add(
    "local: its headers are held",
    lines("@on_request_headers", LOCAL, "@on_response_headers", "return 1"),
    patience=HOLD,
)
add("local: from a tick", held("on_request_headers", 1, LOCAL) + REST, WATCH, request=POST)
add("local: from a tick, response held", WATCH, held("on_response_headers", 1, LOCAL), response=STREAMED)
HELD = lines("@on_response_headers", "return 1", "@on_response_body", 'send_local_response 500 d b "" -1')
add(
    "local: in on_response_body while headers are held",
    WATCH,
    probe(HELD, allow_on_headers_stop_iteration=True),
    response=STREAMED,
)
add("local: to HEAD", WATCH, lines("@on_request_headers", LOCAL), request=Request("HEAD"))
add("local: without a body", WATCH, lines("@on_request_headers", 'send_local_response 200 "" "" "" -1'))
add("local: details", WATCH, lines("@on_request_headers", 'send_local_response 200 a%20%20b%09c%20 b "" -1'))
for pairs in (
    "x=1&x=2&y=3&x=4", ":status=201&:path=/a&x=1", "X-UP=1", "content-length=99&content-type=a%2fb", "raw:garbage",
    "pairs:",
    "content-type=a&content-type=b", "server=me", "set-cookie=a&set-cookie=b",
    "connection=x&transfer-encoding=chunked",
):  # fmt: skip
    add(f"local: pairs {pairs}", WATCH, lines("@on_request_headers", f"send_local_response 200 d body {pairs} -1"))
for code in (200, 204, 304, 400, 401, 404, 418, 429, 500, 502, 503, 504, 599, 600, 999, 70000, -1):
    add(f"local: code {code}", WATCH, lines("@on_request_headers", f'send_local_response {code} d body "" -1'))
    if 200 <= code < 1000:
        add(
            f"local: code {code} to gRPC",
            WATCH,
            lines("@on_request_headers", f'send_local_response {code} d msg%20%25%0a "" -1'),
            request=GRPC,
        )
for grpc_status in (0, 5, 16, 17, 99):
    add(
        f"local: gRPC status {grpc_status}",
        WATCH,
        lines("@on_request_headers", f"send_local_response 403 d msg x=1 {grpc_status}"),
        request=GRPC,
    )
add("local: gRPC status without gRPC", WATCH, lines("@on_request_headers", "send_local_response 403 d msg x=1 5"))
add(
    "local: in configuration",
    lines(
        "@on_configure",
        LOCAL,
        "continue_stream 0",
        "close_stream 0",
        "get_header_map_pairs 0",
        "add_header_map_value 0 x y",
    )
    + WATCH,
)
for where in ("request_headers", "request_body", "response_headers", "response_body"):
    for number in (0, 1):
        add(
            f"close: {number} in {where}",
            WATCH,
            lines(f"@on_{where}", f"close_stream {number}", "say after"),
            WATCH,
            request=POST,
            response=STREAMED,
        )
add("close: other kinds", lines("@on_request_headers", *(f"close_stream {k}" for k in (2, 3, 4, -1))))

# Failures -------------------------------------------------------------------------------------------------------------

POLICIES: Mapping[str, dict[str, Any]] = {
    "unset": {},
    "open": {"policy": "FAIL_OPEN"},
    "closed": {"policy": "FAIL_CLOSED"},
    "reload": {"policy": "FAIL_RELOAD", "back_off": "36000s"},  # Envoy takes a random part of it
    "fail_open": {"fail_open": True},
}
for policy, options in POLICIES.items():
    for where in (
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "log",
        "done",
        "delete",
    ):
        if policy == "closed" and where not in ("request_headers", "log"):
            continue  # as unset
        add(
            f"trap: {where}, {policy}",
            WATCH,
            probe(f"@on_{where}\ntrap\n", **options),
            WATCH,
            request=POST_TRAILERS,
            response=WITH_TRAILERS,
            repeat=2,
        )
    add(f"trap: on_configure, {policy}", WATCH, probe("@on_configure\ntrap\n", **options))
    add(f"trap: on_configure says no, {policy}", WATCH, probe("@on_configure\nreturn 0\n", **options))
    add(f"trap: on_vm_start says no, {policy}", probe(vm_config="@on_vm_start\nreturn 0\n", **options))
    add(
        f"trap: on_tick, {policy}",
        WATCH,
        probe("@on_request_headers\nset_tick_period_milliseconds 30\n@on_tick\ntrap\n", **options),
        repeat=2,
        pause=0.12,
    )
add(
    "trap: reloaded after the back-off",
    probe("@on_request_headers\ntrap\n", policy="FAIL_RELOAD", back_off="0.1s"),
    repeat=3,
    pause=0.2,
)
add(
    "trap: within the back-off", probe("@on_request_headers\ntrap\n", policy="FAIL_RELOAD", back_off="36000s"), repeat=3
)
add(
    "trap: shared VM",
    probe(WATCH, vm_id="shared"),
    probe("@on_request_headers\ntrap\n", vm_id="shared"),
    request=POST,
    repeat=2,
)
add(
    "trap: in the allocator",
    lines("@on_request_headers", "allocator trap", "get_header_map_value 0 :path", "say after"),
    repeat=2,
)
add(
    "trap: restricted call in the allocator",
    lines("@on_request_headers", "allocator call", "get_header_map_value 0 :path", "say after"),
    repeat=2,
)
add("trap: after a local response", WATCH, lines("@on_request_headers", LOCAL, "trap"))
add("trap: gRPC", WATCH, "@on_request_headers\ntrap\n", request=GRPC)
add("trap: divide", WATCH, "@on_request_headers\ndivide\n")
add("trap: out of bounds", WATCH, "@on_request_headers\noob\n")
add("trap: unknown policy pair", probe(policy="FAIL_OPEN", fail_open=True))

# Properties -----------------------------------------------------------------------------------------------------------

REQUEST_PATHS = words(
    """
    request.path request.url_path request.host request.scheme request.method request.referer
    request.useragent request.id request.protocol request.query request.headers.host
    request.headers.:path request.headers.x-dup request.headers.X-Dup request.headers.nope
    request.headers_bytes request.size request.total_size request request.nope request.path.x
    """
)
RESPONSE_PATHS = words(
    """
    response.code response.code_details response.flags response.headers.x-up response.trailers.u
    response.size response response.nope
    """
)
OTHER_PATHS = words(
    """
    source connection connection.mtls connection.requested_server_name connection.tls_version upstream
    upstream.num_endpoints plugin_name plugin_root_id plugin_vm_id
    xds.node.id xds.node.metadata.KEY xds.node.locality.region xds.cluster_name xds.route_name
    xds.virtual_host_name xds.filter_chain_name xds.listener_direction
    xds.route_metadata.filter_metadata.my.key xds.cluster_metadata node.id cluster_name route_name
    listener_direction metadata metadata.filter_metadata filter_state nope
    """
)
ODD_PATHS = [
    "request%00path%00",
    "request%00",
    "plugin_name%00",
    "%00request%00path",
    "request.path",
    "REQUEST%00PATH",
    '""',
    "plugin_name%00x",
]
PHASES = (
    "configure",
    "request_headers",
    "request_body/1",
    "request_trailers",
    "response_headers",
    "response_body/1",
    "response_trailers",
    "log",
    "done",
)
ASKING = Request(
    "POST",
    "/p/a?q=1&r",
    [("x-dup", "1"), ("x-dup", "2"), ("referer", "ref"), ("user-agent", "ua"), ("x-request-id", "rid")],
    [b"abc", b"de"],
    [("t", "1")],
)
ANSWER = Response(201, [("x-up", "1")], [b"xyz"], [("u", "v")])


def asks(paths: Sequence[str]) -> str:
    return "".join(lines(f"@on_{phase}", *(f"get_property {path}" for path in paths)) for phase in PHASES)


def paths(names: Sequence[str]) -> list[str]:
    return [name.replace(".", "%00") for name in names]


ROUTE = {"my": {"key": "value", "n": 1}}
add("properties: of the request", asks(paths(REQUEST_PATHS)), request=ASKING, response=ANSWER)
add(
    "properties: of the response",
    asks(paths(RESPONSE_PATHS)),
    request=ASKING,
    response=ANSWER,
    unsteady="response%00size",
)
add(
    "properties: others",
    probe(asks(paths(OTHER_PATHS)), root_id="my_root", vm_id="my_vm", name="my_plugin"),
    request=ASKING,
    response=ANSWER,
    route_metadata=ROUTE,
)
add("properties: odd paths", asks(ODD_PATHS), request=ASKING, response=ANSWER)
VARYING = (
    "request.time",
    "request.duration",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "connection.id",
    "connection_id",
    "upstream.address",
    "upstream.port",
    "upstream.local_address",
)
add("properties: whose values vary", asks(paths(VARYING)), request=ASKING, response=ANSWER, unsteady=".")
add(
    "properties: for a filter with SDK",
    rust("properties", "request.path\nrequest.headers.x-dup\nplugin_name\ndemo.set\ndemo\nnope"),
    request=ASKING,
    response=ANSWER,
)
SET = lines(
    "@on_configure", "set_property a b", "get_property a",
    "@on_request_headers", "set_property a 1", "get_property a", "get_property wasm.a",
    "get_property filter_state%00wasm.a", "set_property a 2",
    "get_property a", "set_property x%00y%00z deep", "get_property x%00y%00z", "get_property x.y.z",
    "get_property x", "set_property n%00 trailing",
    "get_property n", "get_property n%00", 'set_property "" v', "set_property request%00path over",
    "get_property request%00path",
    "set_property plugin_name mine", "get_property plugin_name", 'set_property empty ""', "get_property empty",
    "@on_response_headers", "get_property a", "@on_log", "get_property a", "set_property late 1",
    "get_property late", "get_property b",
)  # fmt: skip
GET_SET = lines(
    "@on_request_headers",
    "get_property a",
    "get_property x.y.z",
    "set_property b fromsecond",
    "set_property a changed",
    "@on_log",
    "get_property late",
)
add("properties: set", SET, GET_SET)

# Trailers -------------------------------------------------------------------------------------------------------------

for which, side in enumerate(("request", "response")):
    here = 2 * which + 1
    adding = lines(
        f"@on_{side}_body", f"get_header_map_pairs {here}", f"get_header_map_value {here} x",
        f"add_header_map_value {here} nt v",
        f"get_header_map_pairs {here}", f"get_header_map_size {here}", f"@on_{side}_trailers", "say own",
    )  # fmt: skip
    add(
        f"trailers: added in {side} body",
        *([adding, WATCH] if which == 0 else [WATCH, adding]),
        request=POST,
        response=STREAMED,
    )
    changing = lines(
        f"@on_{side}_trailers", f"get_header_map_pairs {here}", f"get_header_map_size {here}",
        f"replace_header_map_value {here} t x",
        f"add_header_map_value {here} n y", f"remove_header_map_value {here} u", f"get_header_map_pairs {here}",
        f"get_buffer_bytes {which} 0 9",
    )  # fmt: skip
    add(
        f"trailers: changed in {side}",
        *([changing, WATCH] if which == 0 else [WATCH, changing]),
        request=POST_TRAILERS,
        response=WITH_TRAILERS,
    )
    add(
        f"trailers: cleared in {side}",
        lines(f"@on_{side}_trailers", f"set_header_map_pairs {here} raw:x", f"get_header_map_pairs {here}"),
        request=POST_TRAILERS,
        response=WITH_TRAILERS,
    )

# Shared state ---------------------------------------------------------------------------------------------------------

add(
    "metrics: statuses",
    lines(
        "@on_request_headers", "define_metric 0 c", "increment_metric $token 5", "increment_metric $token 0",
        "increment_metric $token -1", "get_metric $token",
        "record_metric $token 3", "get_metric $token", "define_metric 1 g", "increment_metric $token -4",
        "get_metric $token", "increment_metric $token 9",
        "get_metric $token", "record_metric $token -7", "get_metric $token", "define_metric 2 h",
        "increment_metric $token 1", "record_metric $token 5",
        "get_metric $token", "define_metric 3 z", "define_metric -1 z", 'define_metric 0 ""',
        "define_metric 0 second",
        *(f"get_metric {i}\nincrement_metric {i} 1\nrecord_metric {i} 1" for i in (0, 1, 2, 3, 999, 1000)),
    ),
)  # fmt: skip
add(
    "metrics: defined again",  # with another name than above: cases share an Envoy, which keeps counters for a while
    lines(
        "@on_request_headers",
        "define_metric 0 again",
        "increment_metric $token 5",
        "define_metric 0 again",
        "get_metric $token",
        "define_metric 1 again",
        "get_metric $token",
    ),
)
add(
    "shared data: compare and swap",
    lines(
        "@on_request_headers", "get_shared_data k", "set_shared_data k v 0", "get_shared_data k",
        "set_shared_data k w $cas", "set_shared_data k x $cas",
        "set_shared_data k x 999999", "set_shared_data k y 0", "set_shared_data new v 77", 'set_shared_data "" e 0',
        'set_shared_data k "" 0',
    ),
    lines("@on_request_headers", "get_shared_data k"),
    unsteady="get_shared_data",  # the counter is the process's
)  # fmt: skip
add(
    "shared data: two plugins in one VM",
    probe(lines("@on_request_headers", "set_shared_data k v 0"), vm_id="two"),
    probe(lines("@on_request_headers", "get_shared_data k"), vm_id="two"),
    unsteady=r"get_shared_data\(k\) = 0",
)
QUEUE = lines(
    "@on_queue_ready", "dequeue_shared_queue $2", "dequeue_shared_queue $2", "@on_request_headers",
    "register_shared_queue q", "register_shared_queue q",
    'resolve_shared_queue "" nope', "resolve_shared_queue othervm q", "dequeue_shared_queue $token",
    "enqueue_shared_queue $token one", "dequeue_shared_queue 999", "enqueue_shared_queue 999 x",
)  # fmt: skip
add(
    "queue: statuses",
    probe(QUEUE, vm_id="queue-vm"),
    linger=0.05,
    unsteady="register_shared_queue|resolve_shared_queue",
)
add(
    "tick: until it is stopped",
    lines(
        "@on_request_headers",
        "set_tick_period_milliseconds 60",
        "@on_tick/1",
        "get_property plugin_name",
        "get_header_map_value 0 :path",
        "get_header_map_pairs 0",
        "get_buffer_status 0",
        "set_effective_context 99",
        "set_effective_context 0",
        "@on_tick/2",
        "set_tick_period_milliseconds 0",
        "@on_tick/3",
        "say never",
    ),
    linger=0.3,
)
add(
    "done: in a stream",
    lines("@on_request_headers", "done", "get_status", "@on_done", "done", "return 0", "@on_log", "done"),
)
add(
    "contexts: effective",
    lines(
        "@on_request_headers",
        "set_effective_context 99",
        "set_effective_context $root",
        "get_header_map_value 0 :path",
        "get_property plugin_name",
        "set_effective_context $stream",
        "get_header_map_value 0 :path",
    ),
)
add(
    "contexts: two plugins in one VM",
    probe(
        lines("@on_request_headers", "set_effective_context 2", "get_property plugin_name", "set_effective_context 4"),
        vm_id="both",
    ),
    probe(
        lines(
            "@on_request_headers",
            "get_property plugin_name",
            "@on_response_headers",
            "set_effective_context 3",
            "get_property plugin_name",
            "get_header_map_value 2 :status",
        ),
        vm_id="both",
    ),
)

# Foreign functions, WASI, configuration, memory -----------------------------------------------------------------------

add(
    "foreign: statuses",
    lines(
        "@on_request_headers", "call_foreign_function compress hello%20hello%20hello%20hello",
        "call_foreign_function uncompress at:$ptr:$size",
        "call_foreign_function uncompress garbage", 'call_foreign_function uncompress ""',
        'call_foreign_function compress ""', "call_foreign_function nope x",
        'call_foreign_function clear_route_cache ""', "call_foreign_function declare_property garbage", "out 0 0",
        "call_foreign_function compress abc",
        "out $mem 0", "call_foreign_function compress abc",
    ),
)  # fmt: skip
def expressions(*texts: str) -> str:
    """Each is made, and evaluated if there is one."""
    made = [f"call_foreign_function expr_create {quote(text, safe='')}" for text in texts]
    evaluated = "if_status 0\ncall_foreign_function expr_evaluate at:$ptr:$size"
    return "".join(f"{each}\n{evaluated}\n" for each in made)


add(
    "foreign: expressions",
    "@on_request_headers\nset_property stored value\n" + expressions(
        "1+1", "-1", "1u", "18446744073709551615u", "1.5", "true", "'a'+'b'", "b'abc'", "''", "null", "type(1)",
        "[1, 'a', [1]]", "[]", "{'a': 1}", "{}", "duration('5s')", "timestamp('2020-01-01T00:00:00Z')", "1/0",
        "1 +", "", "string(b'\\xff')", "int('5')", "dyn(1) == 1.0",
        "google.protobuf.Int32Value{value: 3}", "nope", "request.nope", "has(request.nope)", "request.path",
        "request.path.size()", "request.path == b'/p?q=1'", "request.path.matches('^/p')", "'x'.matches('(')",
        "request.headers['b']", "request.headers.a", "request.headers['host']", "request.headers['nope']",
        "has(request.headers.nope)", "'b' in request.headers", "'nope' in request.headers", "request.size",
        "request.method == 'GET' && request.url_path.startsWith('/p')", "request.id", "request.query", "response.code",
        "request.time < timestamp('2100-01-01T00:00:00Z')", "request.duration", "response.headers", "stored",
        "filter_state['wasm.stored']", "wasm.stored", "plugin_root_id", "route_name",
        "true ? request.method : nope", "nofunc(1)", "'A'.lowerAscii()", "optional.none()",
    ) + lines(
        "call_foreign_function expr_delete %00%00%00%00", "call_foreign_function expr_delete %00%00%00%00",
        "call_foreign_function expr_evaluate %00%00%00%00", "call_foreign_function expr_evaluate a",
        "call_foreign_function expr_delete a", 'call_foreign_function expr_evaluate ""',
        "call_foreign_function expr_create %ff",
    ),
    request=Request("GET", "/p?q=1", HEADERS),
)  # fmt: skip
add("foreign: for a filter with SDK", rust("foreign", "clear_route_cache"))


def signatures() -> str:
    """Calls of ``verify_signature`` and ``sign``, with keys and signatures of all sorts."""
    key, curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    der, pem = serialization.Encoding.DER, serialization.Encoding.PEM

    def public(of: Any, encoding: Any = der) -> bytes:
        return of.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]

    def private(of: Any, encoding: Any = der, form: Any = serialization.PrivateFormat.PKCS8) -> bytes:
        return of.private_bytes(encoding, form, serialization.NoEncryption())  # type: ignore[no-any-return]

    def call(function: str, *content: tuple[int, bytes | str]) -> str:
        message = b"".join(field(number, value) for number, value in content)
        argument = "".join(f"%{byte:02x}" for byte in message)
        return f"call_foreign_function {function} {argument}"

    right = (3, key.sign(b"hello", padding.PKCS1v15(), hashes.SHA256()))
    of_curve = (3, curve.sign(b"hello", ec.ECDSA(hashes.SHA384())))
    text, sha256 = (4, "hello"), (1, "sha256")
    verify = [
        [sha256, (2, public(key)), right, text],
        [(1, "SHA256"), (5, public(key, pem)), right, text],
        [(1, "sha384"), (2, public(curve)), of_curve, text],
        [(1, "sha256"), (2, public(curve)), of_curve, text],
        [sha256, (2, public(key)), right, (4, "hullo")],
        [sha256, (2, public(key)), (3, "no"), text],
        [(1, "md5"), (2, public(key)), right, text],
        [(2, public(key)), right, text],
        [sha256, (2, public(edwards)), right, text],
        [sha256, (2, "no key"), right, text],
        [sha256, (5, "no key"), right, text],
        [sha256, right, text],
        [sha256, (2, public(key)), (5, public(key, pem)), right, text],
        [(1, b"\xff"), (2, public(key))],
    ]
    sign = [
        [sha256, (2, private(key)), (3, "hello")],
        [(1, "Sha512"), (4, private(key, pem)), (3, "")],
        [(1, "md5"), (2, private(key)), (3, "hello")],
        [sha256, (2, "no key"), (3, "hello")],
        [sha256, (4, public(key, pem)), (3, "hello")],
        [sha256, (4, private(key, pem, serialization.PrivateFormat.TraditionalOpenSSL)), (3, "hello")],
        [sha256, (3, "hello")],
        [sha256, (2, private(key)), (4, private(key, pem)), (3, "hello")],
    ]
    calls = [call("verify_signature", *each) for each in verify] + [call("sign", *each) for each in sign]
    return lines("@on_request_headers", *calls, "call_foreign_function sign garbage")


add("foreign: signatures", signatures())


def call_with(function: str, *content: tuple[int, int | str]) -> str:
    """A foreign function with a protobuf message."""
    message = b"".join(field(number, value) for number, value in content)
    return f"call_foreign_function {function} " + ("".join(f"%{byte:02x}" for byte in message) or '""')


add(
    "foreign: properties that are declared",
    lines(
        "@on_configure", call_with("declare_property", (1, "once"), (2, 1)), call_with("declare_property", (1, "once")),
        call_with("declare_property", (1, "any"), (3, 1), (5, 1)), call_with("declare_property"),
        call_with("declare_property"), "call_foreign_function declare_property garbage",
        "@on_request_headers", "set_property any 1", "set_property any 2", "get_property any", "set_property once 1",
        "set_property once 2", "get_property once", "get_property filter_state%00wasm.once",
        call_with("declare_property", (1, "late"), (2, 1)), call_with("declare_property", (1, "late")),
        "set_property late 1", "set_property late 2",
    ),
)  # fmt: skip
VALUES = {
    "envoy.filters.listener.original_dst.local_ip": ("192.0.2.1:80", "no"),
    "envoy.hashable_string": ("x",),
    "envoy.network.application_protocols": ("h2",),
    "envoy.network.ip": ("192.0.2.1", "no"),
    "envoy.network.transport_socket.original_dst_address": ("192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.1"),
    "envoy.network.upstream_server_name": ("a.example",),
    "envoy.network.upstream_subject_alt_names": ("a.example",),
    "envoy.ratelimit.hits_addend": ("3", "no"),
    "envoy.string": ("x", ""),
    "envoy.tcp_proxy.cluster": ("c", ""),
    "envoy.tcp_proxy.disable_tunneling": ("true", "no"),
    "envoy.tcp_proxy.per_connection_idle_timeout_ms": ("100", "no"),
    "envoy.upstream.dynamic_host": ("a.example",),
    "envoy.upstream.dynamic_port": ("80", "no"),
    "unknown": ("x",),
    "": ("x",),
}
add(
    "foreign: filter state",
    lines(
        "@on_configure", call_with("set_envoy_filter_state", (1, "envoy.string"), (2, "x")),
        "@on_request_headers",
        *(call_with("set_envoy_filter_state", (1, name), (2, value)) for name, all in VALUES.items() for value in all),
        "get_property filter_state%00envoy.tcp_proxy.cluster", "get_property filter_state%00envoy.upstream.dynamic_host",
        "get_property filter_state%00envoy.ratelimit.hits_addend", "get_property filter_state%00unknown",
        "call_foreign_function set_envoy_filter_state garbage", 'call_foreign_function set_envoy_filter_state ""',
    ),
)  # fmt: skip
add(
    "wasi: calls",
    probe(
        lines(
            "@on_request_headers", "fd_write 1 hello%0a", "fd_write 2 err%0a", 'fd_write 1 ""', "fd_write 3 x",
            "fd_read 0", "fd_close 1", "fd_seek 1",
            "fd_fdstat_get 1", "fd_fdstat_get 0", "fd_fdstat_get 5", "fd_prestat_get 3", "path_open", "random_get 8",
            "random_get 65536", "random_get 65537",
            "random_get 0", "clock_time_get 0", "clock_time_get 1", "clock_time_get 2", "clock_res_get 0",
            "clock_res_get 2", "environ_get",
            "environ_sizes_get", "args_get", "args_sizes_get", "poll_oneoff", "sched_yield", "random_get at:$mem:1",
            "fd_write 1 at:$mem:1",
            "get_current_time_nanoseconds", "proc_exit 3", "say after",
        ),
        env={"A": "1"},
    ),
)  # fmt: skip
CONFIGURATION = lines(
    "@on_context_create/root", "get_buffer_bytes 7 0 10", "get_buffer_bytes 6 0 10", "@on_configure",
    "get_buffer_bytes 7 2 5", "get_buffer_bytes 7 0 0",
    "get_buffer_bytes 7 5000 5", "get_buffer_bytes 6 0 -1", "set_buffer_bytes 7 0 0 x", "set_buffer_bytes 6 0 3 x",
    "get_buffer_status 7", "done",
    "@on_request_headers", "get_buffer_bytes 7 0 10", "get_buffer_bytes 6 0 10",
)  # fmt: skip
add(
    "configuration: buffers",
    probe(
        CONFIGURATION,
        vm_config=lines(
            "@on_vm_start",
            "get_buffer_bytes 7 0 10",
            "get_buffer_bytes 6 0 10",
            "@on_context_create",
            "get_buffer_bytes 7 0 10",
        ),
    ),
)
add(
    "configuration: names in the log",
    probe("@on_configure\nsay a\n@on_request_headers\nsay b\n", root_id="rr", vm_id="vv", name="nn"),
)
add(
    "configuration: levels of the log",
    lines("@on_request_headers", *(f"log {level} text{level}" for level in (0, 1, 2, 3, 4, 5, 6, -1))),
)
add("configuration: none", probe())
add(
    "memory: bad pointers",
    lines(
        "@on_request_headers", "get_header_map_value 0 at:$mem:1", "get_header_map_value 0 at:$mem-1:1",
        "get_header_map_value 0 at:$mem:0",
        "get_header_map_value 0 at:$mem+1:0", "get_header_map_value 0 at:0xffffffff:2",
        "get_header_map_value 9 at:$mem:1", "out $mem 0",
        "get_header_map_value 0 :path", "out $mem-4 $mem", "get_header_map_value 0 :path", "out $mem-2 $free",
        "get_header_map_value 0 :path", "out 0 0",
        "get_header_map_value 0 :path", "out $mem", "get_header_map_size 0", "out $mem",
        "get_current_time_nanoseconds", "out $mem-4",
        "get_current_time_nanoseconds", "out $mem 0", "get_header_map_pairs 0", "out $mem 0",
        "get_header_map_pairs 7", "out $mem", "define_metric 0 oops",
        "set_header_map_pairs 0 at:$mem:4", "add_header_map_value 0 a at:$mem:1",
        "add_header_map_value 0 at:$mem:1 a",
        'send_local_response 200 at:$mem:1 b "" -1', "send_local_response 200 d b at:$mem:1 -1",
        "get_property at:$mem:1", "set_property at:$mem:1 x",
        "set_shared_data at:$mem:1 x 0", "register_shared_queue at:$mem:1", "enqueue_shared_queue 1 at:$mem:1",
        "set_buffer_bytes 0 0 0 at:$mem:1",
        "call_foreign_function at:$mem:1 x", "call_foreign_function nope at:$mem:1",
        'http_call at:$mem:1 a=b "" "" 100', 'http_call upstream at:$mem:1 "" "" 100',
    ),
)  # fmt: skip
add(
    "memory: allocator",
    lines(
        "@on_request_headers",
        *(f"allocator {kind}\nget_header_map_value 0 :path" for kind in ("zero", "far", "grow", "normal")),
    ),
)
add(
    "capabilities: few",
    probe(
        lines("@on_request_headers", "get_header_map_value 0 :path", "add_header_map_value 0 a b", "fd_write 1 x")
        + lines("@on_response_headers", "say never"),
        capabilities=[
            "proxy_log",
            "proxy_get_header_map_value",
            "proxy_on_context_create",
            "proxy_on_request_headers",
            "proxy_on_configure",
            "proxy_get_buffer_bytes",
            "proxy_get_buffer_status",
        ],
    ),
)

# Versions of the ABI --------------------------------------------------------------------------------------------------

for version in ("0_1_0", "0_2_0", "0_2_1"):
    common = lines(
        "@on_request_headers", "get_header_map_value 0 nope", "get_header_map_value 0 :path",
        "get_header_map_value 2 x", "get_header_map_pairs 2",
        "get_property nope", "get_buffer_status 7",
        *(["get_configuration"] if version == "0_1_0" else ["continue_stream 3", "close_stream 9"]),
        *(["get_log_level"] if version == "0_2_1" else []), "@on_log", "get_header_map_value 0 nope",
        "get_header_map_value 1 nope",
        "@on_configure", *(["get_configuration"] if version == "0_1_0" else []), "get_buffer_bytes 7 0 10",
    )  # fmt: skip
    add(
        f"ABI {version}: calls",
        probe(common, version, vm_config="@on_vm_start\nsay start\n"),
        request=POST_TRAILERS,
        response=WITH_TRAILERS,
    )
    add(f"ABI {version}: local response", probe(lines("@on_request_headers", LOCAL), version))
    add(f"ABI {version}: pause", probe("@on_request_headers\nreturn 1\n", version), request=POST, patience=HOLD)
    resume = held("on_request_headers", 1, "continue_request" if version == "0_1_0" else "continue_stream 0")
    add(f"ABI {version}: resume", probe(resume, version), request=POST)

# Calls to other services ----------------------------------------------------------------------------------------------
# Envoy adds x-envoy-internal and x-envoy-expected-rq-timeout-ms to these requests, and x-envoy-upstream-service-time as
# the last header of their responses: a filter sees and counts it.

CALLOUTS = {"/c": Response(201, [("X-C", "1"), ("x-d", "2"), ("x-c", "3")], [b"he", b"llo"], [("tr", "v")])}
ON_RESPONSE = lines(
    "@on_http_call_response", "get_header_map_pairs 6", "get_header_map_size 6", "get_header_map_value 6 :status",
    "get_header_map_value 6 X-C",
    "get_header_map_pairs 7", "get_buffer_status 4", "get_buffer_bytes 4 0 1000", "set_buffer_bytes 4 0 0 x",
    "add_header_map_value 6 a b", "get_status",
    "get_header_map_value 0 :path", "set_effective_context $stream", "get_header_map_value 0 :path",
    "add_header_map_value 0 x-added 1",
    "get_buffer_bytes 4 0 10", "continue_stream 0",
)  # fmt: skip
CALL = "http_call upstream :method=POST&:path=/c&:authority=au&X-A=1&x-a=2 body t=1 2000"
SERVICE_TIME = r"x-envoy-upstream-service-time=\d"
add(
    "call: reply",
    lines("@on_request_headers", CALL, "return 1") + ON_RESPONSE,
    WATCH,
    callouts=CALLOUTS,
    unsteady=SERVICE_TIME,
)
EMPTY = 'http_call upstream :method=GET&:path=/c&:authority=au "" "" 0'
add(
    "call: reply without a body",
    lines("@on_request_headers", EMPTY, "return 1") + ON_RESPONSE,
    callouts={"/c": Response(204)},
    unsteady=SERVICE_TIME,
)
add(
    "call: reply 500",
    lines("@on_request_headers", EMPTY, "return 1") + ON_RESPONSE,
    callouts={"/c": Response(500, chunks=[b"oops"])},
    unsteady=SERVICE_TIME,
)
add("call: reset", lines("@on_request_headers", EMPTY, "return 1") + ON_RESPONSE, callouts={"/c": Response(reset=True)})
add(
    "call: time-out",
    lines("@on_request_headers", EMPTY.replace('"" 0', '"" 40'), "return 1") + ON_RESPONSE,
    callouts={"/c": Response(200, [("content-length", "5")])},
)
CALL_ERRORS = (
    'nope :method=GET&:path=/&:authority=a "" "" 100', '"" :method=GET&:path=/&:authority=a "" "" 100',
    'upstream :path=/&:authority=a "" "" 100',
    'upstream :method=GET&:authority=a "" "" 100', 'upstream :method=GET&:path=/ "" "" 100',
    'upstream raw:garbage "" "" 100', 'upstream "" "" "" 100',
    'upstream :method=GET&:path=/c&:authority=a "" "" -1',
)  # fmt: skip
add("call: errors", lines("@on_request_headers", *(f"http_call {words}" for words in CALL_ERRORS)))
add(
    "call: three in a row",
    lines("@on_request_headers", EMPTY, "return 1", "@on_http_call_response", EMPTY)
    + lines("@on_http_call_response/3", "set_effective_context $stream", "continue_stream 0"),
    callouts=CALLOUTS,
)
add(
    "call: the stream has gone on",
    lines("@on_request_headers", CALL) + ON_RESPONSE,
    callouts=CALLOUTS,
    linger=0.05,
    unsteady=SERVICE_TIME,
)
GONE = lines(
    "@on_request_headers",
    EMPTY.replace('"" 0', '"" 60'),
    "return 1",
    "@on_http_call_response",
    "get_status",
    "set_effective_context $stream",
)
add(
    "call: the client has gone",
    GONE,
    request=Request(stop=0),
    callouts={"/c": Response(200, [("content-length", "5")])},
    linger=0.15,
)
add(
    "call: local response from the reply",
    lines(
        "@on_request_headers",
        CALL,
        "return 1",
        "@on_http_call_response",
        "set_effective_context $stream",
        'send_local_response 418 d tea "" -1',
    ),
    WATCH,
    callouts=CALLOUTS,
)
add(
    "call: from the response",
    WATCH,
    lines(
        "@on_response_headers",
        CALL,
        "return 1",
        "@on_http_call_response",
        "set_effective_context $stream",
        "add_header_map_value 2 x-r 1",
        "continue_stream 1",
    ),
    callouts=CALLOUTS,
)
add(
    "call: from the body",
    lines(
        "@on_request_body",
        "return 1",
        "@on_request_body/eos",
        CALL,
        "return 1",
        "@on_http_call_response",
        "set_effective_context $stream",
        "get_buffer_bytes 0 0 100",
        "set_buffer_bytes 0 0 100 new",
        "continue_stream 0",
    ),
    WATCH,
    request=POST,
    callouts=CALLOUTS,
)
add(
    "call: without the stream's context",
    lines("@on_request_headers", CALL, "return 1", "@on_http_call_response", "continue_stream 0", LOCAL),
    callouts=CALLOUTS,
    patience=HOLD,
)
add(
    "call: trap in the reply",
    lines("@on_request_headers", CALL, "return 1", "@on_http_call_response", "trap"),
    WATCH,
    callouts=CALLOUTS,
    patience=HOLD,
)
add("upstream: reset", WATCH, WATCH, response=Response(reset=True))

# Filters written with SDKs --------------------------------------------------------------------------------------------

UNNAMED = Request("GET", "/hello", [("user-agent", "ua"), ("x-remove-me", "1")])
add("SDK: Rust headers", rust("headers", "value"), WATCH, request=UNNAMED)
add("SDK: Rust body", rust("body"), WATCH, request=POST, response=Response(chunks=[b"a foo b", b" foo"]))
add("SDK: Rust auth, no token", rust("auth", "secret"), WATCH)
add(
    "SDK: Rust auth, token",
    rust("auth", "secret"),
    WATCH,
    request=Request("GET", "/", [("authorization", "Bearer secret")]),
)
for check, answer in (("200", Response(200)), ("403", Response(403)), ("reset", Response(reset=True))):
    add(
        f"SDK: Rust auth by callout, {check}",
        rust("auth", "callout:upstream"),
        WATCH,
        callouts={"/check": answer},
    )
add("SDK: Rust auth, not configured", rust("auth"))
for place in ("request_headers", "request_body", "response_headers", "log"):
    add(f"SDK: Rust panics in {place}", rust("panics", place), WATCH, request=POST, response=STREAMED)
add("SDK: Rust panics, refuses", rust("panics", "refuse"))
SERVED = Response(headers=[("server", "up")], chunks=[b"a foo b", b" foo"])
for version in ("0_1_0", "0_2_0", "0_2_1"):
    path = FILTERS / f"assemblyscript/headers_{version}.wasm"
    add(f"SDK: AssemblyScript {version}", Filter(path, config="value"), WATCH, request=UNNAMED, response=SERVED)
for name in ("hello", "minimal"):
    add(f"SDK: C {name}", Filter(FILTERS / f"c/{name}.wasm", config="value"), WATCH, request=UNNAMED, response=SERVED)

# Filters that Envoy takes seconds to compile.
SLOW_CASES: list[Case] = []
fast, JSON = len(CASES), Request("POST", "/", chunks=[b'{"b": 1,', b' "a": 2}'])
add(
    "SDK: Go headers",
    Filter(FILTERS / "go/headers.wasm", config="value"),
    WATCH,
    request=UNNAMED,
    response=SERVED,
    patience=20.0,
)
add("SDK: Go body", Filter(FILTERS / "go/body.wasm"), WATCH, request=JSON, response=SERVED, patience=20.0)
SLOW_CASES += CASES[fast:]
del CASES[fast:]
