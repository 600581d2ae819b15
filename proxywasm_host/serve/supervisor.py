"""Starts processes, replaces those that die, and ends them on request."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

__all__ = ["GRACE", "Supervisor"]

GRACE = 5.0
"""Seconds that a process gets to end, in addition to those for its requests, before it is killed."""
EACH = 0.5
"""Most seconds until a dead process is replaced."""
logger = logging.getLogger("proxywasm_host.serve")


class Supervisor:
    """Runs `function` with `arguments` in `count` processes, each a new interpreter."""

    def __init__(self, count: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._processes: list[BaseProcess] = []
        self._count = count
        self._ending = False

    def run(self, seconds: float) -> bool:
        """Run until a signal arrives; then each process has so many seconds to end. Returns whether all ended well."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._processes = [self._started() for _ in range(self._count)]
            while not self._ending:
                wait([process.sentinel for process in self._processes], EACH)
                if not self._ending:
                    self._processes = [self._living(process) for process in self._processes]
            return self._stop(seconds)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True

    def _started(self) -> BaseProcess:
        process = multiprocessing.get_context("spawn").Process(target=self._function, args=self._arguments)
        process.start()
        return process

    def _living(self, process: BaseProcess) -> BaseProcess:
        """The process, or one that replaces it if it has died."""
        if process.is_alive():
            return process
        process.join()
        logger.error("process %d has died: starting another", process.pid)
        return self._started()

    def _stop(self, seconds: float) -> bool:
        for process in self._processes:
            process.terminate()
        until = time.monotonic() + seconds + GRACE
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                logger.error("process %d does not end: killing it", process.pid)
                process.kill()
                process.join()
        return all(process.exitcode in (0, -signal.SIGTERM) for process in self._processes)
