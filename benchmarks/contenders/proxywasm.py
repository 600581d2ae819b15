"""This host: the filter through the public API, with the whole runtime, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.headers import HERE, REQUEST, RESPONSE, HeaderList, header_filter, packed
from benchmarks.timing import InProcess
from proxywasm_host import Host, Plugin


def chain(host: Host, filters: int) -> list[Plugin]:
    """So many header filters, each in a separate VM."""
    code = header_filter()
    return [host.load_plugin(code, name=f"f{i}", vm_id=f"{i}") for i in range(filters)]


def one_request(host: Host, plugins: list[Plugin]) -> tuple[HeaderList, HeaderList]:
    """Send the work through, and return the headers for upstream and for the client."""
    stream = host.http_stream(plugins)
    request: list[Any] = stream.request_headers(REQUEST, True)
    response: list[Any] = stream.response_headers(RESPONSE, True)
    stream.close()
    return request[0].headers, response[0].headers


@contextmanager
def proxywasm(engine: str, filters: int = 1) -> Iterator[InProcess]:
    with Host(engine) as host:
        plugins = chain(host, filters)
        yield InProcess(lambda: one_request(host, plugins))


@contextmanager
def in_python(engine: str) -> Iterator[InProcess]:
    """The packed filter in Python."""
    with Host(engine) as host:
        plugins = [host.load_plugin(packed(HERE / "header_filter.py"), name="header_filter")]
        yield InProcess(lambda: one_request(host, plugins))
