"""HTTP callouts with httpx2, or httpx if httpx2 is not installed, for both kinds of drivers.

After a failure, the filter gets the same as in Envoy, whose router answers for an upstream that fails:

    =====================================  ==========================================================
    no answer in time                      504, ``upstream request timeout``
    no connection, or it ends unanswered   503, ``upstream connect error or disconnect/reset …``
    time-out or end within the answer      failure: on_http_call_response without headers or body
    an answer that is too large            likewise
    =====================================  ==========================================================

The path is sent unchanged, even with dots. Redirects are not followed, bodies not decoded, cookies not stored, and
proxies in the environment not used. httpx2 can neither send nor receive trailers.
"""

from __future__ import annotations

import re
from types import TracebackType
from urllib.parse import urlsplit

from proxywasm_host import remedy

try:
    import anyio

    from proxywasm_host.any_httpx import httpx2
except ModuleNotFoundError as error:
    raise remedy.missing("http", error) from None

from proxywasm_host.driver.clusters import SECURE_ANY_HOST, Cluster, Clusters
from proxywasm_host.driver.in_loop import InLoop
from proxywasm_host.runtime.effects import CalloutFailed, HttpCall, HttpCallReply

__all__ = ["AsyncHttpClient", "HttpClient"]

CONNECTION_SPECIFIC = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade host".split())
TARGET = re.compile(rb"[!-~]+")
NO_ANSWER = b"upstream connect error or disconnect/reset before headers. reset reason: "
REASONS: tuple[tuple[type[Exception], bytes], ...] = (
    (httpx2.PoolTimeout, b"overflow"),
    (httpx2.ConnectTimeout, b"connection timeout"),
    (httpx2.ConnectError, b"remote connection failure"),
    (httpx2.ProtocolError, b"protocol error"),
)
RESET = CalloutFailed("reset")


def cluster_of(callout: HttpCall, clusters: Clusters) -> Cluster:
    """The cluster of a callout. Raises: KeyError."""
    secure = (b":scheme", b"https") in callout.headers
    return clusters.called(callout.cluster, dict(callout.headers)[b":authority"].decode("latin-1") if secure else None)


def request_of(callout: HttpCall, cluster: Cluster) -> httpx2.Request:
    """The request to send. Raises: ValueError, httpx2.InvalidURL."""
    given = dict(reversed(callout.headers))
    headers = [(b"host", given[b":authority"])]
    headers += [
        (name, value.strip(b" \t"))
        for name, value in callout.headers
        if name[:1] != b":" and name not in CONNECTION_SPECIFIC
    ]
    method, target = given[b":method"].decode("ascii"), given[b":path"]
    if not TARGET.fullmatch(target):
        raise ValueError("the path of a callout contains a byte that a request target must not have")
    request = httpx2.Request(method, cluster.url, headers=headers, content=callout.body or None)
    request.method = method  # httpx2 makes it upper-case
    request.extensions["target"] = target  # httpx2 would resolve dots and encode characters
    if cluster.authority is not None:
        request.extensions["sni_hostname"] = urlsplit(f"//{cluster.authority}").hostname
    return request


def options(cluster: Cluster) -> dict[str, object]:
    """Options of a client."""
    wait = httpx2.Timeout(None, connect=cluster.connect_timeout, pool=cluster.connect_timeout)
    limits = httpx2.Limits(max_connections=cluster.max_connections)
    if cluster.url == SECURE_ANY_HOST:  # calls check different names, so they must not share connections
        limits.max_keepalive_connections = 0
    return {"verify": cluster.tls, "http2": cluster.http2, "timeout": wait, "limits": limits, "trust_env": False}


def seconds_of(callout: HttpCall, cluster: Cluster) -> float | None:
    """The timeout of a callout in seconds, or ``None``."""
    return callout.timeout / 1000 if callout.timeout else cluster.timeout


def answer(status: int, body: bytes, failure: str) -> HttpCallReply:
    """The response of Envoy's router for a failed upstream."""
    length = b"%d" % len(body)
    return HttpCallReply(
        [(b":status", b"%d" % status), (b"content-length", length), (b"content-type", b"text/plain")],
        body,
        failure=failure,
    )


def timed_out() -> HttpCallReply:
    return answer(504, b"upstream request timeout", "timeout")


def failure_of(error: Exception) -> str:
    """The name that ngx_wasm_module has for a failed connection."""
    text = str(error).lower()
    if "name or service" in text or "getaddrinfo" in text or "address associated" in text:
        return "resolver failure"
    return "tls handshake failure" if "ssl" in text or "certificate" in text else "broken connection"


def no_answer(error: Exception) -> HttpCallReply:
    """The reply if the upstream has not begun to answer."""
    for kind, reason in REASONS:
        if isinstance(error, kind) and "disconnected" not in str(error):
            return answer(503, NO_ANSWER + reason, failure_of(error))
    return answer(503, NO_ANSWER + b"connection termination", "broken connection")


def reply_of(response: httpx2.Response, body: bytes | bytearray) -> HttpCallReply:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    return HttpCallReply([(b":status", b"%d" % response.status_code), *headers], bytes(body))


class AsyncHttpClient:
    """Makes HTTP callouts in an event loop. Clients are made on first use, one for each cluster."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._clients: dict[Cluster, httpx2.AsyncClient] = {}

    async def __aenter__(self) -> AsyncHttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, cluster: Cluster) -> httpx2.AsyncClient:
        client = self._clients.get(cluster)
        if client is None:
            client = self._clients[cluster] = httpx2.AsyncClient(**options(cluster))  # type: ignore[arg-type]
        return client

    async def __call__(self, callout: HttpCall, /) -> HttpCallReply | CalloutFailed:
        """Make one call. Its result or its failure is the reply."""
        try:
            cluster = cluster_of(callout, self.clusters)
            request = request_of(callout, cluster)
        except (ValueError, KeyError, httpx2.InvalidURL) as error:
            return no_answer(error)
        response: httpx2.Response | None = None
        try:
            with anyio.fail_after(seconds_of(callout, cluster)):
                client = self._client(self.clusters.client_of(callout.cluster, cluster))
                response = await client.send(request, stream=True)
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > cluster.max_response:
                        await response.aclose()  # makes the next read raise, which finishes the generator
                return reply_of(response, body) if len(body) <= cluster.max_response else RESET
        except TimeoutError:
            return timed_out() if response is None else RESET
        except (httpx2.HTTPError, OSError) as error:
            return no_answer(error) if response is None else RESET
        finally:
            if response is not None:
                with anyio.CancelScope(shield=True):
                    await response.aclose()


class HttpClient(InLoop[HttpCall, HttpCallReply]):
    """Makes HTTP callouts for threads; several may use it."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(AsyncHttpClient(clusters))
