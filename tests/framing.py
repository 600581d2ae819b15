"""How messages end once filters have changed them: one table, which drives `Exchange` and the data plane of ``serve``.

A message is a method or a status, its framing, and its body. The framing is what a head says of the end: ``length 6``,
``chunked``, or ``nothing`` for a head that is all there is. A body is given in parts, joined with ``|``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHOUT = "@on_response_body\nset_buffer_bytes 1 0 100 HELLO!!\n"
WHOLE = "@on_response_body/eos\nset_buffer_bytes 1 0 100 WHOLE\nreturn 0\n@on_response_body\nreturn 1\n"
REQUEST_WHOLE = WHOLE.replace("response", "request").replace("bytes 1", "bytes 0")
LOCAL = "@on_request_headers\nsend_local_response 418 tea short a=b -1\n"
GET = ("GET", "nothing", "")
HELLO = (200, "length 6", "Hello.")
UNSENDABLE = (503, "length 0", "")


def on_request(what: str) -> str:
    return f"@on_request_headers\n{what}\n"


def on_response(what: str) -> str:
    return f"@on_response_headers\n{what}\n"


@dataclass(frozen=True)
class Case:
    """What comes from both sides, and what each gets. `upstream` is ``None`` where it is not asked."""

    script: str = ""
    asked: tuple[str, str, str] = GET
    upstream: tuple[str, str, str] | None = GET
    answers: tuple[int, str, str] = HELLO
    client: tuple[int, str, str] = HELLO
    absent: tuple[str, ...] = field(default=())
    """Headers that the client is not sent."""


CASES = {
    "nothing is changed": Case(),
    "chunks, both ways": Case("", ("POST", "chunked", "a|b"), ("POST", "chunked", "ab"), (200, "chunked", "c|d"), (200, "chunked", "cd")),
    "a length, and nothing": Case("", ("POST", "length 0", ""), ("POST", "length 0", ""), (200, "length 0", ""), (200, "length 0", "")),
    "HEAD": Case("", ("HEAD", "nothing", ""), ("HEAD", "nothing", ""), (200, "length 6", ""), (200, "length 6", "")),
    "204": Case("", answers=(204, "nothing", ""), client=(204, "nothing", "")),
    "304, with another response's length": Case("", answers=(304, "length 6", ""), client=(304, "nothing", "")),
    "a filter makes it 204": Case(on_response("replace_header_map_value 2 :status 204"), client=(204, "nothing", "")),
    "a filter asks by HEAD": Case(
        on_request("replace_header_map_value 0 :method HEAD"),
        upstream=("HEAD", "nothing", ""), answers=(200, "length 6", ""), client=(200, "length 0", ""),
    ),
    "a filter asks by GET for a HEAD": Case(
        on_request("replace_header_map_value 0 :method GET"), ("HEAD", "nothing", ""), client=(200, "length 6", ""),
    ),
    "a body is replaced": Case(SHOUT, client=(200, "length 7", "HELLO!!")),
    "a body is replaced as a whole": Case(WHOLE, answers=(200, "length 12", "Hello.|Hello."), client=(200, "length 5", "WHOLE")),
    "a body in chunks is replaced": Case(WHOLE, answers=(200, "chunked", "Hello.|Hello."), client=(200, "chunked", "WHOLE")),
    "a request's body is replaced": Case(REQUEST_WHOLE, ("POST", "length 8", "body|body"), ("POST", "length 5", "WHOLE")),
    **{
        f"a filter says that a response has {length or 'nothing'}": Case(
            on_response(f"replace_header_map_value 2 content-length {length or '%20'}")
        )
        for length in ("999", "0", "abc", "-1", "6,6", "")
    },
    "a filter says a request's length again": Case(
        on_request("replace_header_map_value 0 content-length 999"), ("POST", "length 4", "body"), ("POST", "length 4", "body")
    ),
    "a filter takes the length away": Case(
        on_response("remove_header_map_value 2 content-length"), client=(200, "chunked", "Hello.")
    ),
    "a filter takes a request's length away": Case(
        on_request("remove_header_map_value 0 content-length"), ("POST", "length 4", "body"), ("POST", "chunked", "body")
    ),
    "what is of one connection is not a filter's": Case(
        on_response("add_header_map_value 2 connection x-hop\nadd_header_map_value 2 x-hop 1\nadd_header_map_value 2 upgrade h2c"),
        absent=("x-hop", "upgrade"),
    ),
    "a filter says that it is chunked": Case(on_response("add_header_map_value 2 transfer-encoding chunked")),
    "a filter answers": Case(LOCAL, upstream=None, client=(418, "length 5", "short")),
    "a filter answers a HEAD": Case(LOCAL, ("HEAD", "nothing", ""), None, client=(418, "length 5", "")),
    "a filter answers 204, with a body": Case(LOCAL.replace("418", "204"), upstream=None, client=(204, "nothing", "")),
    "a status that is none": Case(on_response("replace_header_map_value 2 :status 600"), client=UNSENDABLE),
    "a value that cannot be sent": Case(on_response("add_header_map_value 2 x a%0ab"), client=UNSENDABLE),
    "a target that cannot be sent": Case(on_request("replace_header_map_value 0 :path /a%20b"), upstream=None, client=UNSENDABLE),
    "a method that cannot be sent": Case(on_request("replace_header_map_value 0 :method a%20b"), upstream=None, client=UNSENDABLE),
}  # fmt: skip


def headers_of(framing: str) -> list[tuple[str, str]]:
    """What a head says of such an end."""
    if framing == "chunked":
        return [("transfer-encoding", "chunked")]
    return [] if framing == "nothing" else [("content-length", framing.removeprefix("length "))]
