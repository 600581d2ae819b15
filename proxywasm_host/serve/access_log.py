"""One line for each request, in the Common Log Format or as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import TextIO

from proxywasm_host.errors import ConfigError
from proxywasm_host.integrations.asgi.scope import Scope, target
from proxywasm_host.serve.config import AccessLog
from proxywasm_host.serve.proxy import DETAILS

__all__ = ["Log"]

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 256))} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


class Log:
    """Where the lines go. What cannot be written is dropped: a full disk or pipe stops no request."""

    def __init__(self, settings: AccessLog) -> None:
        """Raises: ConfigError."""
        self._line = {"common": common, "json": as_json, "off": None}[settings.format]
        self._file: TextIO | None = None
        if settings.file != "-" and self._line:
            try:
                self._file = open(settings.file, "a", buffering=1, encoding="utf-8", opener=_at_once)  # noqa: SIM115
            except OSError as error:
                raise ConfigError(f"cannot write the access log {settings.file}: {error.strerror}") from None

    def write(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        """Note a request that is over: what the client got, bytes of body, and how long that took."""
        file = self._file or sys.stdout
        if self._line is None or file is None:  # a process may be started without standard output
            return
        try:
            file.write(self._line(scope, status, size, seconds) + "\n")
            if file is sys.stdout:
                file.flush()
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _at_once(path: str, flags: int) -> int:
    """Open a file, and wait for no reader of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def common(scope: Scope, status: int, size: int, seconds: float) -> str:
    """``192.0.2.1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 2326``; status 0 if the client left before."""
    now = time.gmtime()
    day = f"{now.tm_mday:02}/{MONTHS[now.tm_mon - 1]}/{now.tm_year}"
    when = f"{day}:{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} +0000"
    client = scope["client"][0] if scope.get("client") else "-"
    line = f"{scope['method']} {target(scope).decode('latin-1')} HTTP/{scope['http_version']}".translate(ESCAPES)
    return f'{client} - - [{when}] "{line}" {status} {size or "-"}'


def as_json(scope: Scope, status: int, size: int, seconds: float) -> str:
    """The same and more, by name."""
    headers = {name: value for name, value in scope["headers"] if name in (b"host", b"user-agent", b"x-request-id")}

    def header(name: bytes) -> str | None:
        return headers[name].decode("latin-1") if name in headers else None

    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": scope["client"][0] if scope.get("client") else None,
            "method": scope["method"],
            "scheme": scope["scheme"],
            "host": header(b"host"),
            "path": target(scope).decode("latin-1"),
            "protocol": f"HTTP/{scope['http_version']}",
            "status": status,
            "bytes": size,
            "duration_ms": round(seconds * 1000, 3),
            "user_agent": header(b"user-agent"),
            "request_id": header(b"x-request-id"),
            "details": scope.get("state", {}).get(DETAILS),
        }
    )
