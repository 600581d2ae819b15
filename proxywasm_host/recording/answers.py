"""Finds the answers to the callouts of a recording for a test, by kind and cluster, in the order of questions."""

from __future__ import annotations

import re
from ast import literal_eval
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.recording.file_format import Event, Recording
from proxywasm_host.testing import NEVER, later
from proxywasm_host.testing.callouts import answer_of

__all__ = ["REPLAY_INSTEAD", "answers_of"]

REPLAY_INSTEAD = "which a test cannot express: compare everything with proxywasm_host.recording.replay"
ASKS = re.compile(r" *proxy_(http|grpc|redis)_(call|stream)\(.*\) = OK callout (\d+) to ('.*'|\".*\")")
SENDS = re.compile(r" *proxy_(grpc)_(send)\(token=callout (\d+) to ('.*?'|\".*?\"), message=.*\) = OK")
"""Lines of a recording for hostcalls that make a callout, and for those that send a message on one."""


@dataclass
class _Question:
    """A callout, or a message on a gRPC stream, with its answers."""

    kind: str
    cluster: str
    at: int
    """The index of the event in which it was asked."""
    time_ns: int
    streams: bool
    later: float = 0.0
    """Seconds until the first answer, if other events came before it."""
    answers: list[Any] = field(default_factory=list)

    @property
    def answer(self) -> Any:
        if not self.answers:
            return None if self.streams else NEVER
        answer = self.answers[0] if len(self.answers) == 1 else self.answers
        return later(self.later, answer) if self.later else answer


def answers_of(recording: Recording) -> dict[tuple[str, str], list[Any]]:
    """The answers to all callouts. Raises: ConfigError."""
    questions: list[_Question] = []
    open: dict[tuple[str, int], _Question] = {}
    events = [*recording.start, *recording.events]
    for at, event in enumerate(events):
        if event.event == "reply":
            _answered(event, at, events, open)
        for line in event.did:
            asked = ASKS.fullmatch(line) or SENDS.fullmatch(line)
            if asked is None:
                continue
            kind, what, number, cluster = asked.groups()
            key = literal_eval(cluster), int(number)
            question = _Question(kind, key[0], at, event.time_ns, streams=what != "call")
            if what == "stream":  # asks nothing yet; its first message gets the answers that come before it
                open[key] = question
                continue
            if what == "send" and (begun := open.get(key)) is not None and begun not in questions:
                question.answers = begun.answers
            open[key] = question
            questions.append(question)
    answers: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for question in questions:
        answers[question.kind, question.cluster].append(question.answer)
    for (cluster, _), question in open.items():
        if question not in questions:  # a stream without messages of the filter
            if question.answers:
                raise ConfigError(f"a gRPC stream was answered before the filter sent anything, {REPLAY_INSTEAD}")
            answers.setdefault((question.kind, cluster), [])
    return dict(answers)


def _answered(event: Event, at: int, events: list[Event], open: dict[tuple[str, int], _Question]) -> None:
    """Add a reply to the question that it answers. Raises: ConfigError."""
    question = open.get((event.given["cluster"], event.given["number"]))
    if question is None:
        raise ConfigError("the recording has a reply to a callout of another request, which a test cannot express")
    between = {each.event for each in events[question.at + 1 : at]}
    if not question.answers and between - {"reply", "tick"}:
        question.later = round(max(event.time_ns - question.time_ns, 0) / 1e9, 3)
    question.answers.append(answer_of(event.given["reply"]))
