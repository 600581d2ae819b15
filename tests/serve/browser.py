"""A headless Chromium, driven over its DevTools pipe: descriptors 3 and 4, JSON messages that end with NUL."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars"),
)


class Browser:
    """One page. `directory` is for its profile."""

    def __init__(self, directory: Path, width: int = 1180, height: int = 1000) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        exec_browser = f'exec chromium "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = [*FLAGS, f"--user-data-dir={directory}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", exec_browser, "chromium", *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        """What the page complains of: errors of scripts, and what its policy forbids."""
        target = next(each for each in self._ask("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attach = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attach["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def _ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                assert select.select([self._read], [], [], 60)[0], "the browser says nothing"
                data = os.read(self._read, 1 << 16)
                assert data, "the browser has ended"
                self._rest += data
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(answer["params"]))

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def eval(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 15) -> Any:
        """Wait until an expression is true, and give its value."""
        until = time.monotonic() + seconds
        while not (value := self.eval(script)):
            assert time.monotonic() < until, f"never: {script}"
            time.sleep(0.05)
        return value

    def dark(self, on: bool = True) -> None:
        self._ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}],
        )

    def screenshot(self, path: Path) -> None:
        """What the window shows, as a PNG."""
        data = self._ask("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(AssertionError, OSError):
            self._ask("Browser.close")
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)
