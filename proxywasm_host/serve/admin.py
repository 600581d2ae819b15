"""The admin port: ``/metrics`` for Prometheus, and a page that shows the filters at work. Keep it private."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import parse_qs

from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send
from proxywasm_host.integrations.prometheus import Tag
from proxywasm_host.serve.metrics import added, guests_of, rendered

__all__ = ["Admin", "Member"]

JSON = "application/json"
Answer = tuple[int, str, bytes]


class Member(Protocol):
    """A serving process."""

    pid: int

    async def snapshot(self) -> dict[str, Any]:
        """The metrics and the state of the process, as JSON values."""
        ...

    async def live(self, since: int) -> dict[str, Any]:
        """The same, with the requests that have changed since the change with this number."""
        ...

    async def unready(self) -> list[str]:
        """Names of the filters without a working guest; empty if requests can be served."""
        ...


@lru_cache(None)
def page() -> tuple[bytes, str]:
    """The page, and a content security policy that allows only its own script and style."""
    text = files("proxywasm_host.serve").joinpath("page.html").read_text("utf-8")
    allowed = {}
    for tag in ("script", "style"):
        found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert found is not None  # noqa: S101 - it is our page
        allowed[tag] = base64.b64encode(sha256(found[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed['script']}'; style-src 'sha256-{allowed['style']}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


class Admin:
    """The ASGI application of the port. `members` returns the processes to show, without those that are still starting.

    The Host of a request must be an address, localhost, or one of `hosts`. Otherwise another site whose name resolves
    to this machine could read the page (DNS rebinding).
    """

    def __init__(
        self, members: Callable[[], Awaitable[Sequence[Member]]], hosts: Sequence[str] = (), tags: Sequence[Tag] = ()
    ) -> None:
        self._members = members
        self._tags = tags
        self._hosts = {"", "localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as in ASGI."""
        routes = {"/": self._page, "/metrics": self._metrics, "/live.json": self._live, "/healthz": self._health}
        route = routes.get(scope["path"])
        if not self._meant(dict(scope["headers"]).get(b"host", b"").decode("latin-1")):
            status, kind, body = 421, "text/plain", b"This host name is not among admin_hosts.\n"
        elif route is None:
            status, kind, body = 404, "text/plain", b"The paths are /, /metrics, /live.json and /healthz.\n"
        elif scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"Only GET and HEAD are allowed.\n"
        else:
            status, kind, body = await route(scope)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", page()[1].encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _meant(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host).strip("[]").lower()
        try:
            ip_address(name)
        except ValueError:
            return name in self._hosts
        return True

    async def _page(self, scope: Scope) -> Answer:
        return 200, "text/html; charset=utf-8", page()[0]

    async def _health(self, scope: Scope) -> Answer:
        """Whether requests are served: 200, or 503 with the reason."""
        members = await self._members()
        answers = await asyncio.gather(*[member.unready() for member in members], return_exceptions=True)
        wrong = [
            f"process {member.pid}: {unready!r}\n"
            if isinstance(unready, BaseException)
            else f"process {member.pid}: no working guest for {', '.join(unready)}\n"
            for member, unready in zip(members, answers, strict=True)
            if unready
        ]
        if members and not wrong:
            return 200, "text/plain", b"ok\n"
        return 503, "text/plain", ("".join(wrong) or "no process serves\n").encode()

    async def _metrics(self, scope: Scope) -> Answer:
        snapshots = await _all([member.snapshot() for member in await self._members()])
        if not snapshots:
            return 503, "text/plain", b"no process serves\n"
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        ours = added(snapshot["ours"] for snapshot in snapshots)
        body, kind = rendered(ours, guests_of(snapshots), accept, self._tags)
        return 200, kind, body

    async def _live(self, scope: Scope) -> Answer:
        """The changes after ``since``, which is the ``cursor`` of an earlier answer."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("since", [""])[0]
        since = {pid: int(change) for pid, change in re.findall(r"(\d{1,10}):(\d{1,18})", given)}
        members = await self._members()
        answers = await _all([member.live(since.get(str(member.pid), 0)) for member in members])
        return 200, JSON, json.dumps(_united(answers)).encode()


async def _all(asked: list[Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The answers of the processes, without those that have just ended."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [one for one in answers if isinstance(one, dict)]


def _united(answers: list[dict[str, Any]]) -> dict[str, Any]:
    requests = [{**request, "pid": one["pid"]} for one in answers for request in one["requests"]]
    ours = added(one["ours"] for one in answers)
    return {
        "cursor": ",".join(f"{one['pid']}:{one['changes']}" for one in answers),
        "workers": [
            {key: one[key] for key in ("pid", "generation", "retired", "chain")}
            | {"resident_bytes": one["ours"]["resident_bytes"]}
            for one in answers
        ],
        "upstream": answers[0]["upstream"] if answers else "",
        "requests": requests,
        "ours": ours,
        "guests": guests_of(answers),
    }
