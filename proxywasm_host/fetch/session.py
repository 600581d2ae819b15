"""Requests for modules, with limits of size, time and redirects.

httpx2 limits each wait, but neither the whole request nor the size of its body. So each fetch runs in a new event loop,
which ends at the time limit, and bodies are counted while they arrive.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from proxywasm_host import remedy

try:
    import anyio

    from proxywasm_host.any_httpx import httpx2
except ModuleNotFoundError as error:
    raise remedy.missing("oci", error) from None

from proxywasm_host.errors import FetchError, Unreachable

__all__ = ["Answer", "Session", "run"]

REDIRECTS = 5
MAX_ANSWER = 4 << 20
"""Maximum bytes of answers other than modules: manifests, tokens, errors. Registries limit manifests to this."""
WAIT = 30.0
"""Maximum seconds without a byte."""
GRACE = 2.0
"""Seconds in which a fetch must end after its time limit. The system's resolver cannot be cancelled."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that mean that a server cannot answer now."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """A complete answer of a server."""

    status: int
    headers: httpx2.Headers
    body: bytes


def run(work: Callable[[], Awaitable[Result]], seconds: float) -> Result:
    """Run work in a new event loop in a new thread. Raises: the errors of the work; Unreachable, after `seconds`.

    A caller in an event loop blocks that loop meanwhile, like reading a file.
    """
    late = Unreachable(f"it was not fetched within {seconds:g} seconds")
    outcome: list[Result] = []
    failed: list[BaseException] = []

    async def bounded() -> None:
        with anyio.move_on_after(seconds) as scope:
            outcome.append(await work())
        if scope.cancelled_caught:
            raise late

    def thread() -> None:
        try:
            anyio.run(bounded)
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            failed.append(error)

    runs = threading.Thread(target=thread, name="proxywasm-fetch", daemon=True)
    runs.start()
    runs.join(seconds + GRACE)
    if failed:
        raise failed[0]
    if not outcome:
        raise late
    return outcome[0]


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine."""
    name = httpx2.URL(f"http://{host}").host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class Session:
    """The requests of one fetch. `ca` is a file of authorities that are trusted in addition to the system's."""

    def __init__(self, ca: str | None, plain_http: frozenset[str]) -> None:
        self._plain = plain_http
        try:
            context = ssl.create_default_context()
            if ca is not None:
                context.load_verify_locations(ca)
        except OSError as error:
            raise FetchError(f"cannot read the authorities in {ca}: {error.strerror or error}") from None
        here: dict[str, Any] = {f"all://{name}": None for name in ("localhost", "127.0.0.1", "[::1]")}
        self._client = httpx2.AsyncClient(verify=context, timeout=WAIT, mounts=here)  # no proxy for this machine
        self._schemes: dict[str, str] = {}

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def check(self, url: httpx2.URL) -> None:
        """Check the URL of a request. Raises: FetchError, for plain HTTP that is not allowed, and other schemes."""
        host = url.netloc.decode()
        if url.scheme == "http" and not (is_loopback(host) or host in self._plain):
            raise FetchError(
                f"{host} is used without TLS, so that anyone on the network path could replace the module: "
                "use https, or name the host in plain_http"
            )
        if url.scheme not in ("http", "https"):
            raise FetchError(f"{url} is not a URL of an HTTP server")

    async def scheme(self, host: str) -> str:
        """The scheme for a registry: ``https`` unless it is in `plain_http`; on this machine, what it supports."""
        if host in self._plain:
            return "http"
        if not is_loopback(host):
            return "https"
        if host not in self._schemes:
            try:
                await self.send("HEAD", f"https://{host}/v2/")
                self._schemes[host] = "https"
            except Unreachable as error:
                if not _speaks_no_tls(error):
                    raise
                self._schemes[host] = "http"
        return self._schemes[host]

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        most: int = MAX_ANSWER,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request and follow redirects. Only the first server gets ``Authorization``.

        Raises: FetchError, for an answer of more than `most` bytes or a forbidden redirect; Unreachable.
        """
        at = httpx2.URL(url)
        sent = {"accept-encoding": "identity", **(headers or {})}
        for _ in range(REDIRECTS + 1):
            self.check(at)
            try:
                answer = await self._once(method, at, sent, most, form)
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                raise Unreachable(f"{at.netloc.decode()}: {str(error) or type(error).__name__}") from error
            where = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or where is None:
                if answer.status in BUSY:
                    raise Unreachable(f"{at.netloc.decode()} answered {answer.status}")
                return answer
            try:
                to = at.join(where)
            except httpx2.InvalidURL:
                raise FetchError(f"{at.netloc.decode()} redirects to {where[:200]!r}, which is not a URL") from None
            if at.scheme == "https" and to.scheme != "https":
                raise FetchError(f"{at.netloc.decode()} redirects to {to.netloc.decode()} without TLS")
            if (to.scheme, to.netloc) != (at.scheme, at.netloc):
                sent.pop("authorization", None)
            at = to
        raise FetchError(f"{httpx2.URL(url).netloc.decode()} redirects more than {REDIRECTS} times")

    async def _once(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], most: int, form: Mapping[str, str] | None
    ) -> Answer:
        async with self._client.stream(method, url, headers=headers, data=form) as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError(f"{url.netloc.decode()} encodes its answer, although that was not requested")
            body = bytearray()
            if not 300 <= response.status_code < 400:
                limit = most if response.status_code == 200 else MAX_ANSWER
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > limit:
                        raise FetchError(f"{url.netloc.decode()} sends more than {limit} bytes")
            return Answer(response.status_code, response.headers, bytes(body))


def _speaks_no_tls(error: BaseException | None) -> bool:
    """Whether a TLS handshake failed for a reason other than a certificate."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, ssl.SSLCertVerificationError)
        error = error.__cause__ or error.__context__
    return False
