"""docs/http-syntax.md is true: of ours and of Envoy, which are asked again; nginx is asked when the page is written."""

from __future__ import annotations

import pytest

from tests.serve.syntax import CASES, HTTP2_CASES, Upstream, column, envoy, read

PAGE = read()


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.socket.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_ours(serve, upstream):
    served = serve(settings={"filters": []}, upstream=f"http://127.0.0.1:{upstream.port}", access_log="off")
    served.get()
    assert column(port_of(served.url), upstream) == PAGE["serve"]


def test_envoy(upstream, tmp_path):
    with envoy(tmp_path, upstream) as port:
        assert column(port, upstream) == PAGE["Envoy"]


UNSEEN = {"a pseudo-header in trailers"}
"""The library for HTTP/2 takes it away, and nobody sees it."""


def test_nothing_passes_that_both_others_refuse():
    assert set(PAGE["serve"]) == {*CASES, *HTTP2_CASES}
    for name, cell in PAGE["serve"].items():
        if name not in UNSEEN and not (PAGE["Envoy"][name].startswith("200") or PAGE["nginx"][name].startswith("200")):
            assert not cell.startswith("200"), name
