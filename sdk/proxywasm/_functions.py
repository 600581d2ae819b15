"""Plain functions as handlers, which together make one filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from proxywasm._callbacks import register
from proxywasm._filters import HttpFilter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "on_configure",
    "on_log",
    "on_request_body",
    "on_request_headers",
    "on_request_trailers",
    "on_response_body",
    "on_response_headers",
    "on_response_trailers",
]


F = TypeVar("F", bound="Callable[..., Any]")


class Functions(HttpFilter):
    """The filter that the decorated functions make up."""


def _handler(name: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        setattr(Functions, name, staticmethod(function))
        register(Functions)
        return function

    return decorate


on_configure = _handler("on_configure")
on_request_headers = _handler("on_request_headers")
on_request_body = _handler("on_request_body")
on_request_trailers = _handler("on_request_trailers")
on_response_headers = _handler("on_response_headers")
on_response_body = _handler("on_response_body")
on_response_trailers = _handler("on_response_trailers")
on_log = _handler("on_log")
