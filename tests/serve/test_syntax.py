"""docs/http-syntax.md is true: of ours and of Envoy, which are asked again; nginx is asked when the page is written."""

from __future__ import annotations

import pytest

from tests.serve.syntax import OURS, Upstream, column, envoy, read

PAGE = read()


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.socket.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_ours(serve, upstream, plane):
    served = serve(settings={"filters": []}, upstream=f"http://127.0.0.1:{upstream.port}", access_log="off")
    served.get()
    assert column(port_of(served.url), upstream) == PAGE[{plane: name for name, plane in OURS.items()}[plane]]


def test_envoy(upstream, tmp_path):
    with envoy(tmp_path, upstream) as port:
        assert column(port, upstream) == PAGE["Envoy"]


@pytest.mark.parametrize("ours", OURS)
def test_nothing_passes_that_both_others_refuse(ours):
    for name, cell in PAGE[ours].items():
        if not (PAGE["Envoy"][name].startswith("200") or PAGE["nginx"][name].startswith("200")):
            assert not cell.startswith("200"), name
