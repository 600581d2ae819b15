"""Filters on the calls that a program makes with requests.

Calls pass the filters of the adapter that is mounted for their URL:

    session = requests.Session()
    session.mount("https://api.example", ProxyWasmAdapter(requests.adapters.HTTPAdapter(), ["auth.wasm"]))
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from proxywasm_host import remedy

try:
    import requests
except ModuleNotFoundError as error:
    raise remedy.missing("requests", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.integrations.calls import Call
from proxywasm_host.integrations.exchange import RequestHead, StreamReset
from proxywasm_host.integrations.outgoing import OUTGOING, Answer, Outgoing, framed
from proxywasm_host.integrations.threads import ThreadCarrier
from proxywasm_host.integrations.urllib3 import answer_of, encoded, parts_of, received
from proxywasm_host.integrations.wsgi.environ import text_of

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmAdapter"]


class ProxyWasmAdapter(ThreadCarrier, requests.adapters.BaseAdapter):
    """An adapter that passes requests and responses through filters.

    Args: the adapter that sends, then those of `Carrier`. `properties` may be a function of the request; `clients` are
        those of `ThreadDriver`.

    Filters load with the first request. Raises: the errors of the adapter. If filters break off a response, requests'
    ConnectionError, or within a body ChunkedEncodingError.
    """

    logger = logging.getLogger("proxywasm_host.requests")
    behind = (
        lambda app: isinstance(app, requests.adapters.BaseAdapter),
        "the adapter that sends: ProxyWasmAdapter(requests.adapters.HTTPAdapter(), ['auth.wasm'])",
    )

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request through the filters. The other arguments go to the adapter."""
        known = {**OUTGOING, **self._properties_of(request)}
        driver, stream = self._stream(known, lambda: outgoing(request).addressed())

        def ask(head: RequestHead, body: Iterator[bytes] | None) -> Answer:
            response = self.app.send(sent(request, head, body), *args, **{**options, "stream": True})
            return answer_of(response.raw, response.close)

        call = Call(driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head, parts = call.run(outgoing(request), parts_of(request.body))
        except StreamReset as error:
            raise requests.exceptions.ConnectionError(str(error), request=request) from None
        response = BUILDER.build_response(
            request, received(head, parts, request.method, preload_content=False, decode_content=False)
        )
        response.connection = self  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """End the filters and close the adapter."""
        super().close()
        self.app.close()


BUILDER = requests.adapters.HTTPAdapter()
"""Builds the response objects of requests."""


def outgoing(request: requests.PreparedRequest) -> Outgoing:
    """A request of the library, as `Outgoing`."""
    parts = urlsplit(request.url or "")
    headers = [(encoded(name), encoded(value)) for name, value in request.headers.items()]
    if "Host" not in request.headers:
        headers.insert(0, (b"host", parts.netloc.rpartition("@")[2].encode()))
    return Outgoing((request.method or "GET").encode(), request.path_url.encode(), parts.scheme.encode(), headers)


def sent(
    request: requests.PreparedRequest, head: RequestHead, body: Iterator[bytes] | None
) -> requests.PreparedRequest:
    """The request for the adapter. It goes where the program sends it, even if filters change its host."""
    made = request.copy()
    scheme, netloc, *_ = urlsplit(request.url or "")
    path, _, query = head.path.decode("latin-1").partition("?")
    made.url = urlunsplit((scheme, netloc, path, query, ""))
    made.method = head.method.decode("ascii")
    made.headers.clear()
    for name, value in text_of(framed(head)):
        made.headers[name] = f"{made.headers[name]}, {value}" if name in made.headers else value
    made.body = body  # type: ignore[assignment]
    return made
