"""Output as text: the exchange step by step, then the changes of request and response.

All lines are wrapped to a width, so they look the same in a terminal, a pipe and a test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.cli.diff import changes, warnings
from proxywasm_host.describe import (
    action_text,
    callback_text,
    effect_text,
    event_text,
    hostcall_text,
    is_worth_telling,
    text,
)
from proxywasm_host.runtime.effects import ResetStream
from proxywasm_host.runtime.failure import Failure, describe
from proxywasm_host.services import GuestLog
from proxywasm_host.services.log import printable
from proxywasm_host.testing import ExchangeResult, InputEvent, Invocation, Message

__all__ = ["EMPTY", "WHOLE", "Line", "Screen", "facts", "failure_report", "hanging", "labelled", "outcome", "timeline"]

WIDTH = 100
LABEL = 10
QUIET = frozenset(("on_context_create", "on_log", "on_done", "on_delete"))
"""Callbacks that are shown only if something happened in them."""

FAILED = "wasm_fail_stream"
"""Details of the host's response when a guest has failed."""

LEVEL_STYLES = ("dim", "dim", "blue", "yellow", "red", "bold red")
VERB_STYLES = {
    "adds": "green",
    "removes": "red",
    "replaces": "yellow",
    "sets all": "yellow",
    "writes": "yellow",
    "answers": "bold yellow",
    "closes": "bold yellow",
    "refused": "bold red",
}
ACTION_STYLES = {"CONTINUE": "green", "true": "green", "false": "bold red"}
DIFF_STYLES = {" ": "", "+": "green", "-": "red"}


WHOLE = -1
"""The indent of lines that are never wrapped, so that they can be copied: paths, frames of a backtrace."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. If it is wrapped, further lines begin at column `indent`; with `WHOLE` it is never wrapped."""

    text: Text
    indent: int = 0


class Screen:
    """Prints lines on standard output or standard error, with colours if the user wants them.

    `color`: with ``None``, the terminal and ``NO_COLOR`` decide.
    """

    def __init__(self, color: bool | None = None, *, err: bool = False) -> None:
        file = sys.stderr if err else sys.stdout
        terminal = file.isatty()
        if color is None:
            color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._console = Console(
            file=file,
            color_system="standard" if color else None,
            force_terminal=color,
            no_color=not color,
            width=None if terminal else WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def print(self, lines: Iterable[Line]) -> None:
        """Print lines; a long one is wrapped and indented."""
        for line in lines:
            for part in self._fitting(line):
                self._console.print(part, soft_wrap=True)

    def _fitting(self, line: Line) -> Iterator[Text]:
        text, indent = line.text, line.indent
        width = max(self._console.width, 40)
        if indent == WHOLE or (text.cell_len <= width and "\n" not in text.plain):
            yield text
            return
        head, rest = text.divide([indent]) if indent else (Text(), text)
        for number, part in enumerate(rest.wrap(self._console, width - indent, overflow="fold")):
            part.rstrip()
            yield Text.assemble(head if number == 0 else " " * indent, part)


def hanging(indent: int, *parts: str | Text | tuple[str, str]) -> Line:
    """A line of several parts, each plain or with a style. Control characters are escaped."""
    return Line(Text.assemble(*map(_shown, parts)), indent)


def _shown(part: str | Text | tuple[str, str]) -> str | Text | tuple[str, str]:
    if isinstance(part, Text):
        return part
    return _text(part) if isinstance(part, str) else (_text(part[0]), part[1])


def _text(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


EMPTY = Line(Text())


def labelled(indent: int, label: str, style: str, content: str, *, width: int = LABEL, content_style: str = "") -> Line:
    """A label that is `width` columns wide, and its text."""
    return hanging(indent + width, " " * indent, (label.ljust(width), style), (content, content_style))


def facts(parts: Iterable[str]) -> Iterator[Line]:
    """One line of facts."""
    yield hanging(0, (" · ".join(parts), "dim"))


# -- Step by step ------------------------------------------------------------------------------------------------------


def timeline(entries: Iterable[object], request: Message, response: Message, *, trace: bool) -> Iterator[Line]:
    """The recorded entries, with a heading for each mark. With `trace`, every hostcall is listed."""
    heading = "start"
    for entry in entries:
        if isinstance(entry, InputEvent):
            heading = _heading(entry, request, response)
            continue
        for line in _entry(entry, trace):
            if heading:
                yield EMPTY
                yield hanging(2, (heading, "bold"))
                heading = ""
            yield line


def _heading(mark: InputEvent, request: Message, response: Message) -> str:
    if mark.what == "request headers":
        method, scheme, host, path = map(text, map(request.first, (b":method", b":scheme", b":authority", b":path")))
        return f"{event_text(mark)}: {method} {scheme}://{host}{path}"
    if mark.what == "response headers":
        return f"{event_text(mark)}: {text(response.first(b':status'))}"
    return event_text(mark)


def _entry(entry: object, trace: bool) -> Iterator[Line]:
    if isinstance(entry, Invocation):
        yield from _invocation(entry, trace)
    elif isinstance(entry, (GuestLog, Call)):
        yield from _events([entry], "", trace)
    else:
        style = "bold yellow" if isinstance(entry, ResetStream) else "dim"
        yield hanging(4, ("  → ", style), (effect_text(entry), style))  # type: ignore[arg-type]


def _invocation(invocation: Invocation, trace: bool) -> Iterator[Line]:
    events = list(_events(invocation.events, invocation.row.key, trace))
    if not events and not (trace or invocation.failed) and invocation.row.key in QUIET:
        return
    result = action_text(invocation.row, invocation.result)
    came: list[tuple[str, str]] = []
    if invocation.failed:
        came = [(" ✗ FAILED", "bold red")]
    elif result:
        came = [(" → ", "dim"), (result, ACTION_STYLES.get(result, "bold yellow"))]
    yield hanging(4, "  ", (invocation.plugin, "cyan"), "  ", callback_text(invocation), *came)
    yield from events


def _events(events: Iterable[Call | GuestLog], callback: str, trace: bool) -> Iterator[Line]:
    for event in events:
        if isinstance(event, Call):
            if trace:
                yield _traced(event)
            elif is_worth_telling(event):
                verb, what = hostcall_text(event, callback)
                yield labelled(6, verb, VERB_STYLES.get(verb, "magenta"), what)
        elif not trace:
            level = LogLevel(event.level).name.lower()
            yield labelled(6, level, LEVEL_STYLES[event.level], event.message)


def _traced(call: Call) -> Line:
    """A hostcall with its answer. It shows the text of a log line, which needs no further line."""
    whole = describe(call)
    status = len(describe(call._replace(result=None)).removesuffix(" = OK"))
    style = "red" if isinstance(call.result, Refusal) else "green"
    return hanging(8, "      ", whole[:status], (whole[status : status + 3], "dim"), (whole[status + 3 :], style))


# -- Results -----------------------------------------------------------------------------------------------------------


def outcome(request: Message, response: Message, result: ExchangeResult) -> Iterator[Line]:
    """The messages that upstream and the client get, compared with the original ones."""
    yield EMPTY
    yield from _request(request, result)
    yield EMPTY
    yield from _response(request, response, result)


def _request(request: Message, result: ExchangeResult) -> Iterator[Line]:
    upstream = result.upstream_request
    if upstream is None:
        yield _title("REQUEST", "nothing reaches upstream", why(result))
        return
    yield from _changes("REQUEST", "client → upstream", request, upstream)
    yield from _warnings(warnings(upstream, "the request"), result)


def _response(request: Message, response: Message, result: ExchangeResult) -> Iterator[Line]:
    client, local = result.client_response, result.local_response
    if client is None:
        yield _title("RESPONSE", "the client gets no response", why(result))
        return
    if local is None:
        yield from _changes("RESPONSE", "upstream → client", response, client)
    else:
        maker = "the host" if local.details == FAILED else "a filter"
        yield _title("RESPONSE", f"made by {maker} → client", f"details: {local.details}" if local.details else "")
        yield from _lines(client, client)
    bodiless = request.first(b":method") == b"HEAD" or client.first(b":status") in (b"204", b"304")
    yield from _warnings(warnings(client, "the response", bodiless=bodiless), result)


def why(result: ExchangeResult) -> str:
    """The reason why a message did not come out."""
    if result.failure is not None:
        return f"{result.failure.plugin} failed in {result.failure.callback}"
    if result.reset is not None:
        return f"the stream was reset: {result.reset}"
    if result.local_response is not None:
        return "a filter answered"
    return "".join(f"{plugin} paused the {which} and never resumed it" for which, plugin in result.held_by.items())


def _title(title: str, way: str, note: str) -> Line:
    return hanging(2, (title, "bold reverse"), "  ", (way, "bold"), (f"  {note}" if note else "", "yellow"))


def _changes(title: str, way: str, before: Message, after: Message) -> Iterator[Line]:
    lines = list(changes(before, after))
    yield _title(title, way, "" if any(sign != " " for sign, _ in lines) else "unchanged")
    yield from _diff_lines(lines)


def _lines(before: Message, after: Message) -> Iterator[Line]:
    yield from _diff_lines(changes(before, after))


def _diff_lines(lines: Iterable[tuple[str, str]]) -> Iterator[Line]:
    for sign, line in lines:
        yield hanging(6, (f"  {sign} {line}".rstrip(), DIFF_STYLES[sign]))


def _warnings(lines: Iterable[str], result: ExchangeResult) -> Iterator[Line]:
    for line in lines:
        because = why(result) if line.endswith("never came") else ""
        yield hanging(4, ("  ! ", "bold yellow"), (f"{line}{': ' + because if because else ''}", "yellow"))


def failure_report(failure: Failure) -> Iterator[Line]:
    """Why a guest failed, with its backtrace and its last hostcalls."""
    first, *rest = failure.report().splitlines()
    yield hanging(2, (first, "bold red"))
    for line in rest:
        yield hanging(WHOLE if line.lstrip().startswith("at ") else len(line) - len(line.lstrip()) + 2, line)
