"""Drives a plugin's generator: each effect becomes a callout of the gateway, whose reply resumes it. No I/O here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Union

from proxywasm_host.kong.plugin import Effect, EffectFailed, ReadRequestBody, Run, StartTimer, Wait
from proxywasm_host.runtime.effects import Callout, CalloutFailed

__all__ = ["Answer", "PluginCallout", "Task"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to a `PluginCallout`; its value resumes the plugin."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class PluginCallout(Callout):
    """An effect that a plugin has yielded; the embedder answers with an `Answer` or `CalloutFailed`."""

    Reply: ClassVar[tuple[type, ...]] = (Answer, CalloutFailed)

    plugin: Any = field(repr=False)
    """The `Gateway`."""
    token: int
    effect: Effect
    cluster: str = ""
    background: bool = False  # type: ignore[misc]


class Performer(Protocol):
    """Passes effects of tasks to the embedder. The `Gateway` is one."""

    def start_timer(self, timer: StartTimer, /) -> None:
        """Start a timer."""
        ...

    def call(self, task: Task, effect: Effect, /) -> int:
        """Emit an effect, whose result resumes the task. Returns its token."""
        ...

    def cancel(self, token: int, /) -> None:
        """Cancel the effect with this token: its result is dropped."""
        ...


class Task:
    """A running generator, and the effect that it waits for.

    `done` is called once, at the end, with the exception if there was one. `body` returns the request's body, or
    ``None`` until all of it has arrived; then `resume_with_body` must be called.
    """

    _awaits_body = False
    _token = 0
    _ended = False

    def __init__(
        self,
        gateway: Performer,
        run: Run,
        done: Callable[[Exception | None], None],
        body: Callable[[], Union[bytes, None]] = bytes,
        *,
        background: bool = False,
    ) -> None:
        self.background = background
        """Whether the task belongs to no request."""
        self._gateway = gateway
        self._run = run
        self._done = done
        self._body = body

    @property
    def awaits_body(self) -> bool:
        """Whether the task waits for the request's body."""
        return self._awaits_body

    def resume(self, value: Any = None, failure: str | None = None) -> None:
        """Continue with the result of the last effect, or with the reason for its failure."""
        self._token = 0
        while not self._ended:
            try:
                effect = self._run.send(value) if failure is None else self._run.throw(EffectFailed(failure))
            except StopIteration:
                self._end(None)
                return
            except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
                self._end(error)
                return
            value = failure = None
            if isinstance(effect, StartTimer):
                self._gateway.start_timer(effect)
            elif isinstance(effect, Wait):
                effect.signal.add(self.resume)
                return
            elif isinstance(effect, ReadRequestBody):
                value = self._body()
                if value is None:
                    self._awaits_body = True
                    return
            else:
                self._token = self._gateway.call(self, effect)
                return

    def resume_with_body(self, body: bytes) -> None:
        """Continue with the request's body, which has arrived."""
        self._awaits_body = False
        self.resume(body)

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._done(error)

    def cancel(self) -> None:
        """End the generator, and cancel its effect."""
        if not self._ended:
            self._ended = True
            if self._token:
                self._gateway.cancel(self._token)
            self._run.close()
