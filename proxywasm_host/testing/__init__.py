"""Helpers for tests: filters under test, whole requests in one call, and the compliance suite for engines.

    with Harness() as harness:
        auth = harness("auth.wasm", "callout:idp")
        auth.http["idp"] = Response(200)
        assert auth.get("/", {"authorization": "Bearer secret"}).status == 200

A `Harness` is the environment of filters; see `proxywasm_host.testing.harness`. An exchange uses your own host:

    with Host() as host:
        auth = host.load_plugin("auth.wasm", configuration="callout:idp")
        result = exchange(host, [auth], Message.request("GET", "http://example.com/"), callouts={"idp": reply})
    result.client_response.status, result.upstream_request, result.logs

Rules of an exchange:

* Upstream answers after it has received the whole request. A request that stays paused, is reset or is answered by a
  filter never reaches upstream.
* A callout to a cluster in `callouts` gets its reply from there as soon as the callback has returned or, with
  `late_replies`, after the whole message was fed. The host's own clusters are also allowed, but do not answer. Refused
  hostcalls are in `ExchangeResult.refused`.
* Time stands still. `ticks` is the maximum number of ticks while a message is paused.
* The stream is always closed at the end; plugins and host stay open.

All names are imported lazily. Only the suite for engines needs pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from proxywasm_host import remedy

if TYPE_CHECKING:
    from .callouts import FAIL, NEVER, Callout, GrpcStatus, RedisError, RedisStatus, later
    from .compliance import EngineComplianceSuite
    from .guest import Guest
    from .harness import FilterUnderTest, Harness
    from .http import Headers, Request, Response, sse
    from .message import Message
    from .outcome import Logs, Outcome
    from .redis import fake_redis
    from .result import ExchangeResult
    from .run import Answer, exchange
    from .timeline import InputEvent, Invocation, Recorder

__all__ = [
    "FAIL",
    "NEVER",
    "Answer",
    "Callout",
    "EngineComplianceSuite",
    "ExchangeResult",
    "FilterUnderTest",
    "GrpcStatus",
    "Guest",
    "Harness",
    "Headers",
    "InputEvent",
    "Invocation",
    "Logs",
    "Message",
    "Outcome",
    "Recorder",
    "RedisError",
    "RedisStatus",
    "Request",
    "Response",
    "exchange",
    "fake_redis",
    "later",
    "sse",
]

_HOME = {
    "callouts": "FAIL NEVER Callout GrpcStatus RedisError RedisStatus later",
    "compliance": "EngineComplianceSuite",
    "guest": "Guest",
    "harness": "FilterUnderTest Harness",
    "http": "Headers Request Response sse",
    "message": "Message",
    "outcome": "Logs Outcome",
    "redis": "fake_redis",
    "timeline": "InputEvent Invocation Recorder",
    "result": "ExchangeResult",
    "run": "Answer exchange",
}
_MODULES = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "EngineComplianceSuite":
        _rewrite_asserts(f"{__name__}.compliance")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def _rewrite_asserts(module: str) -> None:
    try:
        import pytest  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise remedy.missing("testing", error) from None
    pytest.register_assert_rewrite(module)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
