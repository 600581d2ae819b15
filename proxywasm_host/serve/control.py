"""How the process that holds the admin port and watches files talks to those that serve: over Unix sockets.

Each process serves `Control` on a socket named after its id, in a directory that only its user can enter; `Remote` is
the other end.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import httpx2

from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send
from proxywasm_host.serve.admin import Member
from proxywasm_host.serve.source import Source

__all__ = ["Application", "Control", "Fleet", "Remote"]


class Application(Member, Protocol):
    """What serves in a process, as the process around it sees it."""

    scheme: str
    """Of the URL at which it serves."""
    loaded: bool
    """Whether there is a chain."""

    def __init__(
        self, source: Source[Any], settings: Any, listening: socket.socket | None, shared: str = "memory"
    ) -> None:
        """Serve on what `bind` has made; ``None``: load everything, and take no connections.

        `shared` says who shares what filters share; see `open_shared`.
        """

    @staticmethod
    def bind(settings: Any) -> AbstractContextManager[socket.socket]:
        """A socket with the address at which all processes serve. Raises: ConfigError."""
        ...

    @classmethod
    def in_process(
        cls, source: Source[Any], settings: Any, listening: socket.socket, shared: str
    ) -> Sequence[Application]:
        """One for each thread of a process, the first of which the others need."""
        ...

    async def start(self) -> None:
        """Load the filters, and serve. Raises: ProxyWasmError."""

    async def reload(self) -> str:
        """Read the configuration again, and replace what runs. Returns why that cannot be done, or nothing."""
        ...

    async def close(self) -> None:
        """Take no more requests, and give those under way their time."""

    async def stop(self) -> None:
        """Free everything. Requests that are under way have had their time."""


class Control:
    """What a serving process can be asked: an ASGI application."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        application = self._application
        answer: Any
        if scope["path"] == "/reload":
            answer = await application.reload()
        elif scope["path"] == "/unready":
            answer = await application.unready()
        elif scope["path"] == "/live":
            since = parse_qs(scope["query_string"].decode("ascii"))["since"][0]
            answer = await application.live(int(since))
        else:
            answer = await application.snapshot()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Remote:
    """A serving process, as the other sees it."""

    def __init__(self, path: Path) -> None:
        self.pid = int(path.stem)
        self._client = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path)), timeout=60)

    async def _ask(self, method: str, path: str) -> Any:
        return (await self._client.request(method, f"http://worker{path}")).json()

    async def snapshot(self) -> dict[str, Any]:
        """The numbers of all processes, as JSON has them."""
        answer: dict[str, Any] = await self._ask("GET", "/snapshot")
        return answer

    async def live(self, since: int) -> dict[str, Any]:
        """What has happened since the event of that number."""
        answer: dict[str, Any] = await self._ask("GET", f"/live?since={since}")
        return answer

    async def unready(self) -> list[str]:
        """Why requests cannot be served now; nothing if they can."""
        answer: list[str] = await self._ask("GET", "/unready")
        return answer

    async def reload(self) -> str:
        """See `Application.reload`. A process that ends meanwhile need not."""
        with suppress(httpx2.TransportError):
            return str(await self._ask("POST", "/reload"))
        return ""


class Fleet:
    """The processes whose sockets are in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[Path, Remote] = {}
        self._up_to_date: set[Path] = set()
        self._reloaded = False

    async def members(self) -> list[Remote]:
        """Those that run now. The socket of a process that was killed is removed."""
        return list((await self._members()).values())

    async def _members(self) -> dict[Path, Remote]:
        self._known = {path: self._known.get(path) or Remote(path) for path in self._living()}
        return self._known

    def _living(self) -> list[Path]:
        sockets = sorted(self._directory.glob("*.sock"))
        dead = [path for path in sockets if not Path(f"/proc/{path.stem}").exists()]
        for path in dead:
            path.unlink(missing_ok=True)
        return [path for path in sockets if path not in dead]

    async def reload(self) -> str:
        """Reload one after the other; if the first cannot, the others are not asked."""
        for path, member in (await self._members()).items():
            refused = await member.reload()
            if refused:
                return refused
            self._up_to_date.add(path)
        self._reloaded = True
        return ""

    async def catch_up(self) -> None:
        """Reload those that have started since, which may have read the configuration as it was before."""
        for path, member in (await self._members()).items():
            if path not in self._up_to_date:
                self._up_to_date.add(path)
                if self._reloaded:
                    await member.reload()
