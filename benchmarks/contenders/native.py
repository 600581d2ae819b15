"""The work as a plain Python function: the cost of an extension without a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.headers import REQUEST, RESPONSE, HeaderList
from benchmarks.timing import InProcess


def get(headers: HeaderList, wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None


def remove(headers: HeaderList, unwanted: bytes) -> None:
    headers[:] = [pair for pair in headers if pair[0] != unwanted]


def replace(headers: HeaderList, wanted: bytes, value: bytes) -> None:
    for place, (name, _) in enumerate(headers):
        if name == wanted:
            headers[place] = (name, value)
            return
    headers.append((wanted, value))


def on_request(headers: HeaderList) -> None:
    get(headers, b":path")
    get(headers, b"user-agent")
    headers.append((b"x-wasm", b"hello"))
    remove(headers, b"x-remove-me")


def on_response(headers: HeaderList) -> None:
    get(headers, b"server")
    headers.append((b"x-wasm", b"hello"))
    replace(headers, b"server", b"hello")


def one_request() -> tuple[HeaderList, HeaderList]:
    request = list(REQUEST)
    on_request(request)
    response = list(RESPONSE)
    on_response(response)
    return request, response


@contextmanager
def native() -> Iterator[InProcess]:
    yield InProcess(one_request)
