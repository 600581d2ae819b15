"""Expressions in CEL, over the package cel-expr-python (extra ``cel``): cel-cpp, by which Envoy evaluates them, too.

No deadline ends a foreign function. So an expression is a text of `MAX_TEXT` characters at most and without a loop
(``all``, ``exists``, ``exists_one``, ``map``, ``filter``; ``has`` is none), and has few regular expressions. The
package bounds how deeply it is nested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from proxywasm_host import remedy
from proxywasm_host.protobuf import fields
from proxywasm_host.services.foreign_call import ForeignCallFailed
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["Expression", "Expressions"]

NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, INTERNAL_FAILURE = 1, 2, 3, 10
MAX_TEXT = 4096
MAX_SIZE = 4 * MIB
"""Bytes of all expressions of a plugin."""
LAST = 0xFFFFFFFF
"""The highest token."""
MAX_MATCHES = 16
"""Calls of ``matches``. A text as long as a header may be takes a tenth of a second as a regular expression."""
EXPRESSION, CHARACTER = 4096, 192
"""Bytes that an expression takes, and each character of it."""
CONSTANT, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = range(3, 10)
"""Kinds of an ``Expr`` (``cel/expr/syntax.proto``), by the number of its field."""
TEXT = 6
"""The field of a constant that is text."""
STANDARD = frozenset([
    *("!_", "-_", "_!=_", "_%_", "_&&_", "_*_", "_+_", "_-_", "_/_", "_<=_", "_<_", "_==_", "_>=_", "_>_"),
    *("_?_:_", "_[_]", "_||_", "@in"),
    *("bool", "bytes", "contains", "double", "dyn", "duration", "endsWith", "getDate", "getDayOfMonth"),
    *("getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth"),
    *("getSeconds", "int", "matches", "size", "startsWith", "string", "timestamp", "type", "uint"),
])
"""What can be called: the functions of the language itself. Another is refused where the expression is made."""
Path = tuple[str, ...]


class Expression:
    """An expression that was read. `paths` are the properties that it asks for, `size` the bytes that it takes.

    Raises: ForeignCallFailed, with the status for the guest.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise ForeignCallFailed(BAD_ARGUMENT, f"the expression has {len(text)} characters, at most {MAX_TEXT}")
        try:
            self._compiled = _library().compile(text, disable_check=True)
        except RuntimeError as error:
            raise ForeignCallFailed(BAD_ARGUMENT, f"no expression in CEL: {error}") from None
        calls: list[str] = []
        paths: set[Path] = set()
        parsed = _field(self._compiled.serialize(), 2)  # an Any, and in it a ParsedExpr
        _look(_field(parsed, 2), calls, paths)
        unknown = [name for name in calls if name not in STANDARD]
        if unknown:
            raise ForeignCallFailed(BAD_ARGUMENT, f"no function of CEL is called {unknown[0]!r}")
        if calls.count("matches") > MAX_MATCHES:
            raise ForeignCallFailed(BAD_ARGUMENT, f"the expression calls matches more than {MAX_MATCHES} times")
        self.paths = sorted(paths, key=len)
        self.size = EXPRESSION + CHARACTER * len(text)

    def evaluate(self, properties: Mapping[str, Any]) -> Any:
        """Its value, of these properties: dicts by the segments of their names. Raises: ForeignCallFailed."""
        try:
            value = self._compiled.eval(data={name: _of_cel(each) for name, each in properties.items()})
        except (RuntimeError, ValueError, TypeError) as error:
            raise ForeignCallFailed(INTERNAL_FAILURE, str(error)) from None
        kind = value.type().name()
        if kind == "ERROR":
            raise ForeignCallFailed(INTERNAL_FAILURE, str(value.value()))
        if kind in ("NULL", "TYPE"):
            raise ForeignCallFailed(SERIALIZATION_FAILURE, f"a value of type {kind} has no form in the ABI")
        return value.plain_value()


class Expressions:
    """The expressions of one plugin, by token."""

    def __init__(self) -> None:
        self._expressions: dict[int, Expression] = {}
        self._next = 0
        self._quota = Quota("the expressions of this plugin", MAX_SIZE)

    def add(self, expression: Expression) -> int:
        """Keep an expression. Returns its token. Raises: QuotaExceeded."""
        self._quota.reserve(expression.size)
        while self._next in self._expressions:
            self._next = (self._next + 1) & LAST
        token = self._next
        self._next = (token + 1) & LAST
        self._expressions[token] = expression
        return token

    def get(self, token: int) -> Expression | None:
        """The expression of a token, or ``None``."""
        return self._expressions.get(token)

    def remove(self, token: int) -> None:
        """Forget the expression of a token, if there is one."""
        found = self._expressions.pop(token, None)
        if found is not None:
            self._quota.release(found.size)


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # noqa: PLC0415 - an extra brings it

    return cel.NewEnv()


def _library() -> Any:
    """Raises: ForeignCallFailed, without the package."""
    try:
        return _environment()
    except ModuleNotFoundError as error:
        raise ForeignCallFailed(NOT_FOUND, str(remedy.missing("cel", error))) from None


def _of_cel(value: Any) -> Any:
    """A property as the package takes it."""
    if isinstance(value, Mapping):
        return {str(name): _of_cel(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_cel(each) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, (datetime, timedelta)):
        from google.protobuf import duration_pb2, timestamp_pb2  # noqa: PLC0415 - the extra brings it

        message: Any = timestamp_pb2.Timestamp() if isinstance(value, datetime) else duration_pb2.Duration()
        (message.FromDatetime if isinstance(value, datetime) else message.FromTimedelta)(value)
        return message
    return value


def _look(expression: bytes, calls: list[str], paths: set[Path]) -> None:
    """Note what an ``Expr`` calls, and the properties that it asks for. Raises: ForeignCallFailed, for a loop."""
    path = _path(expression)
    if path:
        paths.add(path)
        return
    for kind, body in fields(expression):
        if not isinstance(body, bytes) or kind == CONSTANT:
            continue
        if kind == COMPREHENSION:
            raise ForeignCallFailed(BAD_ARGUMENT, "a loop (all, exists, map, filter) is not evaluated here")
        for number, part in fields(body):
            if kind == CALL and number == 2 and isinstance(part, bytes):
                calls.append(part.decode())
            elif isinstance(part, bytes):
                for each in _parts(kind, number, part):
                    _look(each, calls, paths)


def _parts(kind: int, number: int, part: bytes) -> Iterator[bytes]:
    """The expressions in a field of an expression."""
    if (kind, number) in ((SELECT, 1), (CALL, 1), (CALL, 3), (LIST, 1)):
        yield part
    elif (kind, number) == (STRUCT, 2):  # an entry: key and value
        yield from (each for at, each in fields(part) if at in (3, 4) and isinstance(each, bytes))


def _path(expression: bytes) -> Path:
    """The property that an ``Expr`` is: ``request.headers['a']``; empty if it is something else."""
    for kind, body in fields(expression):
        if not isinstance(body, bytes):
            continue
        parts = list(fields(body))
        if kind == IDENT:
            return (_field(body, 1).decode(),)
        if kind == SELECT:
            found = dict(parts)
            before = _path(_bytes(found[1]))
            return (*before, _bytes(found[2]).decode()) if before else ()
        if kind == CALL and (2, b"_[_]") in parts:
            of, at = (_bytes(part) for number, part in parts if number == 3)
            before, key = _path(of), dict(fields(_field(at, CONSTANT))).get(TEXT)
            return (*before, _bytes(key).decode()) if before and key is not None else ()
    return ()


def _field(message: bytes, number: int) -> bytes:
    """A field of a message that is a message or text; empty if it is not there."""
    return _bytes(dict(fields(message)).get(number, b""))


def _bytes(part: int | bytes) -> bytes:
    return part if isinstance(part, bytes) else b""
