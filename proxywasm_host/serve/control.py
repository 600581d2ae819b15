"""How the process that has the admin port and watches files controls the serving processes: over Unix sockets.

Each serving process serves `Control` on a socket named after its id, in a directory that only its user can enter;
`Remote` is the client.
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

__all__ = ["Application", "Control", "Processes", "Remote"]


class Application(Member, Protocol):
    """The interface of an application to the code that runs it in a process."""

    loaded: bool
    """Whether the filters are loaded."""

    def __init__(
        self, source: Source[Any], settings: Any, listening: Sequence[socket.socket] | None, shared: str = "memory"
    ) -> None:
        """Serve on sockets of `bind`; with ``None``, load everything but accept no connections.

        `shared` says which processes share the state of filters; see `open_shared`.
        """

    @staticmethod
    def bind(settings: Any) -> AbstractContextManager[Sequence[socket.socket]]:
        """Sockets that all processes listen on. Raises: ConfigError."""
        ...

    @staticmethod
    def addresses(settings: Any, listening: Sequence[socket.socket]) -> list[str]:
        """The URLs of the sockets, for messages."""
        ...

    @classmethod
    def in_process(
        cls, source: Source[Any], settings: Any, listening: Sequence[socket.socket], shared: str
    ) -> Sequence[Application]:
        """The applications of a process, one for each thread; the others depend on the first."""
        ...

    async def start(self) -> None:
        """Load the filters, and serve. Raises: ProxyWasmError."""

    async def reload(self) -> str:
        """Read the configuration again and replace the running one. Returns the reason if that fails, else ``""``."""
        ...

    async def close(self) -> None:
        """Accept no more requests, and give the current ones time to end."""

    async def stop(self) -> None:
        """Free everything. Requests that still run are cut off."""


class Control:
    """The control interface of a serving process, an ASGI application."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as in ASGI."""
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
    """The client of a serving process."""

    def __init__(self, path: Path) -> None:
        self.pid = int(path.stem)
        self._client = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path)), timeout=60)

    async def _ask(self, method: str, path: str) -> Any:
        return (await self._client.request(method, f"http://worker{path}")).json()

    async def snapshot(self) -> dict[str, Any]:
        """See `Member.snapshot`."""
        answer: dict[str, Any] = await self._ask("GET", "/snapshot")
        return answer

    async def live(self, since: int) -> dict[str, Any]:
        """See `Member.live`."""
        answer: dict[str, Any] = await self._ask("GET", f"/live?since={since}")
        return answer

    async def unready(self) -> list[str]:
        """See `Member.unready`."""
        answer: list[str] = await self._ask("GET", "/unready")
        return answer

    async def reload(self) -> str:
        """See `Application.reload`. A process that ends meanwhile counts as done."""
        with suppress(httpx2.TransportError):
            return str(await self._ask("POST", "/reload"))
        return ""


class Processes:
    """The processes whose sockets are in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[Path, Remote] = {}
        self._up_to_date: set[Path] = set()
        self._reloaded = False

    async def members(self) -> list[Remote]:
        """The processes that run now. The socket of a killed process is removed."""
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
        """Reload one process after the other, until one fails. Returns its reason, or ``""``."""
        for path, member in (await self._members()).items():
            refused = await member.reload()
            if refused:
                return refused
            self._up_to_date.add(path)
        self._reloaded = True
        return ""

    async def catch_up(self) -> None:
        """Reload processes that have started since `reload`, and may have read the old configuration."""
        for path, member in (await self._members()).items():
            if path not in self._up_to_date:
                self._up_to_date.add(path)
                if self._reloaded:
                    await member.reload()
