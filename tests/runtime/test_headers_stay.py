"""The flag ``headers_stay``: headers that have gone on can be read, and no more be changed, until the stream ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxywasm_host import ENVOY, SPEC
from tests.support import REQUEST, RESPONSE

STAY = replace(ENVOY, headers_stay=True)
PHASES = ["request_body", "request_trailers", "response_headers", "response_body", "response_trailers", "done", "delete"]


def script(*instructions: str) -> str:
    return "\n".join(line for phase in PHASES for line in (f"@on_{phase}", *instructions))


def run(host, plugin) -> None:
    with host.http_stream([plugin]) as stream:
        stream.request_headers([*REQUEST, (b"x-changed", b"no")])
        stream.request_body(b"body")
        stream.request_trailers([(b"t", b"1")])
        stream.response_headers(RESPONSE)
        stream.response_body(b"body")
        stream.response_trailers([(b"t", b"2")])


CHANGES = "@on_request_headers\nreplace_header_map_value 0 x-changed yes\n"


@pytest.mark.parametrize(
    ("profile", "found"),
    [(STAY, '0 "yes"'), (replace(SPEC, headers_stay=True), '0 "yes"'), (ENVOY, "2"), (SPEC, "2")],
    ids=["envoy, stay", "spec, stay", "envoy", "spec"],
)
def test_headers_of_the_request_in_every_later_phase(host, probe, log, profile, found):
    run(host, probe(CHANGES + script("get_header_map_value 0 x-changed"), profile=profile))
    assert [line.partition(" = ")[2] for line in log.messages[1:]] == [found] * len(PHASES)


def test_all_of_them_their_size_and_their_properties(host, probe, log):
    reads = "get_header_map_pairs 0\nget_header_map_size 0\nget_property request%00path\nget_property request%00headers%00user-agent"
    run(host, probe("@on_response_body\n" + reads, profile=STAY))
    assert [line.partition(" = ")[2] for line in log.messages] == [
        "0 [:authority=example.com, :path=/a?b=c, :method=GET, :scheme=http, user-agent=test, x-changed=no]",
        "0 78",
        '0 "/a?b=c"',
        '0 "test"',
    ]


def test_headers_of_the_response_once_they_have_come(host, probe, log):
    asks = "get_header_map_value 2 server\nget_property response%00headers%00server"
    phases = ["@on_request_headers", "@on_request_body", "@on_response_body", "@on_done"]
    run(host, probe("\n".join(f"{phase}\n{asks}" for phase in phases), profile=STAY))
    assert [line.partition(" = ")[2] for line in log.messages] == ["2", "1", "2", "1", '0 "up"', '0 "up"', '0 "up"', '0 "up"']


@pytest.mark.parametrize(
    "change",
    [
        "add_header_map_value 0 a b",
        "replace_header_map_value 0 user-agent b",
        "remove_header_map_value 0 user-agent",
        "set_header_map_pairs 0 a=b",
    ],
)
def test_they_cannot_be_changed_any_more(host, probe, log, trace, change):
    run(host, probe(f"@on_response_headers\n{change}\nget_header_map_value 0 user-agent", profile=STAY))
    assert [line.partition(" = ")[2] for line in log.messages] == ["2", '0 "test"']
    says = "BAD_ARGUMENT: request headers have been passed on, and can no longer be changed"
    assert [call.partition(" = ")[2] for call in trace.hostcalls if call.partition("(")[0] == f"proxy_{change.split()[0]}"] == [says]


def test_what_a_filter_may_change_is_still_changed(host, probe):
    with host.http_stream([probe("@on_request_headers\nadd_header_map_value 0 a b", profile=STAY)]) as stream:
        [out] = stream.request_headers(REQUEST, True)
    assert out.headers[-1] == (b"a", b"b")


def test_a_context_of_no_stream_has_none(host, probe, log):
    probe("@on_configure\nget_header_map_value 0 :path\nget_header_map_pairs 0", profile=STAY)
    assert [line.partition(" = ")[2] for line in log.messages] == ["2", "0 []"]
