"""Tests of an AssemblyScript filter that changes headers: with a snapshot, and with the profile of G-Core."""

import pytest

HEADERS = "../../tests/filters/assemblyscript/headers_0_2_1.wasm"


def test_all_that_can_be_seen(proxywasm, proxywasm_snapshot):
    headers = proxywasm(HEADERS, "hello")
    proxywasm_snapshot(headers.get("/x", {"user-agent": "curl"}))


@pytest.mark.proxywasm(profile="gcore")
def test_it_needs_no_property_that_gcore_withholds(proxywasm):
    outcome = proxywasm(HEADERS, "hello").get("/x")
    assert outcome.upstream.headers == {"x-wasm": "hello"}
    assert proxywasm.withheld == []
