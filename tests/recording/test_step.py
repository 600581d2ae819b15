"""``proxywasm step``: a recorded request, callback by callback, forward and back."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from proxywasm_host.cli.app import app
from tests.cli.conftest import AUTH, HEADERS, command, proxywasm

__all__ = ["command", "proxywasm"]


@pytest.fixture
def step(proxywasm, tmp_path):
    """Walk through a request that a service denies: what is printed for what is typed."""
    file = tmp_path / "recording.json"
    words = [AUTH, "/x", "--config", "callout:idp", "-H", "authorization: Bearer t", "--callout", "idp=403:no"]
    assert proxywasm("run", *words, "--record", file).code == 0

    def step(*typed: str, modules: tuple[str, ...] = ()) -> list[str]:
        result = CliRunner().invoke(app, ["step", str(file), *modules], input="\n".join(typed) + "\n")
        assert result.exception is None, result.output
        return result.output.splitlines()

    return step


def titles(lines: list[str]) -> list[str]:
    return [line for line in lines if " of " in line and ": auth proxy_on" in line]


def test_forward_and_back_and_there(step):
    assert titles(step("", "", "b", "5", "99", "q")) == [
        "1 of 13: auth proxy_on_context_create(1, 0)",
        "2 of 13: auth proxy_on_vm_start(1, 0) = 1",
        "3 of 13: auth proxy_on_configure(1, 11) = 1",
        "2 of 13: auth proxy_on_vm_start(1, 0) = 1",
        "5 of 13: auth proxy_on_request_headers(2, 5, 1) = 1",
        "13 of 13: auth proxy_on_delete(1)",
    ]


def test_what_the_filter_had_stands_beside_what_it_did(step):
    shown = step("5", "", "q")
    at = shown.index("5 of 13: auth proxy_on_request_headers(2, 5, 1) = 1")
    assert shown[at + 1] == (
        "  proxy_get_header_map_value(map=REQUEST_HEADERS, key='authorization') = OK 'Bearer t'"
    )
    assert "    REQUEST_HEADERS:" in shown
    assert "      authorization: Bearer t" in shown
    assert "    HTTP_CALL_RESPONSE_BODY: no" in shown


def test_the_end_and_what_is_not_understood(step):
    assert len(titles(step(*[""] * 20))) == 13
    assert "Enter: next, b: back, a number: go there, q: quit" in step("what", "q")


def test_another_module(step):
    assert any("x-wasm" in line for line in step("5", "q", modules=(HEADERS,)))
