"""Tests of a Go filter that changes headers in both directions."""

from proxywasm_host.testing import Response

HEADERS = "../../tests/filters/go/headers.wasm"


def test_the_request(proxywasm):
    outcome = proxywasm(HEADERS, "from Go").get("/x", {"user-agent": "curl", "x-remove-me": "please"})
    assert outcome.upstream.headers == {"user-agent": "curl", "x-wasm": "from Go"}
    assert outcome.logs.info == [
        "headers: request for /x by curl",
        "headers: response by -",
        "headers: done",
    ]


def test_the_response(proxywasm):
    headers = proxywasm(HEADERS, "from Go")
    headers.upstream = Response(200, {"server": "upstream"}, "Hello.")
    outcome = headers.get("/x")
    assert outcome.response == Response(200, {"server": "proxy-wasm", "x-wasm": "from Go"}, "Hello.")
