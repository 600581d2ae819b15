"""A filter behind Envoy's ext_proc does what it does inside of Envoy: each case both ways.

What differs is in `DIFFERS`, of which docs/ext-proc.md has the table.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxywasm_host import open_engine
from tests.envoy.cases import CASES
from tests.envoy.rig import Answer, Case, ask
from tests.envoy.through_ext_proc import ask_ext_proc, http_filter
from tests.envoy.through_host import told_by_envoy

PAGE = Path(__file__).parents[2] / "docs/ext-proc.md"
FULL_DUPLEX = http_filter("FULL_DUPLEX_STREAMED")
DIFFERS = {
    "headers: add :scheme": "HTTP cannot represent it, so the client gets 503",
    "headers: remove (:scheme )?:authority": "`:authority` cannot be removed: upstream gets an empty one",
    "response headers: set all": "the order is kept for values of one name, not between names",
    "local: twice": "the details are those of the response that is sent, not those of the second",
    "local: again in on_response_body": "Envoy still has the response's headers: the client gets 503 and no broken response",
    "local: (to HEAD|code (204|304))": "Envoy adds no `content-type` to a local response without a body",
    "local: code (600|999|70000|-1)": "an invalid status is answered 503",
    "close: [01] in (request_headers|request_body|response_headers)": (
        "if a filter closes a stream before the response has begun, the client gets 503"
    ),
    "trailers: added in (request|response) body": "trailers cannot be added to a message without trailers",
    "properties: (others|whose values vary|of the response)": "Envoy sends only the attributes that it is configured to send",
    "call: the (stream has gone on|client has gone)": "a stream ends with Envoy's call, which does not wait for replies",
    "call: reply": "filters do not get the trailers of a reply",
    "call: from the response": "the end of a body may arrive as a separate empty part",
    "call: trap in the reply": "the call ends at once, and does not wait for a time-out",
    "body: response held for ever": "the client gets no headers while the body is held",
    "resume: the client gives up amid the body": "data that a client sends just before it disconnects may not reach the filters",
    "upstream: reset": "Envoy does not send the details of a response that it made itself",
    "shared data: two plugins in one VM": "in Envoy, the main thread starts the filters too",
    "trap: (in|restricted call in) the allocator": "the callback ends at once",
    "trap: after a local response": "the details are those of the failure, not those of the response that was not sent",
    "trap: on_tick, (open|reload)": "ticks occur independently",
    "trap: unknown policy pair": "Envoy has two options for the same setting, and refuses both together",
}
"""Patterns of cases in which ext_proc differs, and why. A case that agrees after all fails, so that this stays true."""
RACES = r"resume: .*|call: .*|trap: on_tick, .*|body: response held for ever|shared data: .*"
"""Those that depend on what comes first."""


ADDED = r", (transfer-encoding=chunked|x-envoy-upstream-service-time=\d+)"
"""Headers that filters see in Envoy only: of framing, and of the replies to callouts."""


def reason(case: Case) -> str:
    return next((why for pattern, why in DIFFERS.items() if re.fullmatch(pattern, case.name)), "")


@pytest.fixture(scope="session")
def processed(tmp_path_factory: pytest.TempPathFactory):
    return ask_ext_proc(CASES, tmp_path_factory.mktemp("ext_proc"), open_engine(), FULL_DUPLEX)


def marked(case: Case) -> object:
    marks = (
        [pytest.mark.xfail(strict=not re.fullmatch(RACES, case.name), raises=AssertionError, reason=reason(case))]
        if reason(case)
        else []
    )
    return pytest.param(case, id=case.name, marks=marks)


def told(answer: Answer, case: Case, logs: list[str]) -> list[object]:
    if not answer.started:
        return []
    seen = told_by_envoy(case, answer)
    steady = [re.sub(ADDED, "", line) for line in logs]
    return [seen.upstream, seen.client, steady]


def table() -> str:
    """What differs, for the page."""
    rows = []
    for pattern, why in DIFFERS.items():
        names = ", ".join(f"`{case.name}`" for case in CASES if re.fullmatch(pattern, case.name))
        rows.append(f"| {why} | {names} |\n")
    return "".join(["| ext_proc | cases |\n", "|---|---|\n", *rows])


def test_the_page_has_the_table():
    page = PAGE.read_text()
    assert table() in page
    assert f"send {len(CASES)} cases" in page


def test_each_pattern_is_of_a_case():
    assert [pattern for pattern in DIFFERS if not any(re.fullmatch(pattern, case.name) for case in CASES)] == []


@pytest.mark.carries("ext-proc", "local responses", "response bodies part by part", "request trailers", "response trailers")
@pytest.mark.parametrize("case", list(map(marked, CASES)))
def test_agrees(case: Case, answers: dict[str, Answer], processed, tmp_path: Path):
    ours, theirs = both(case, processed, answers)
    for attempt in range(0 if reason(case) else 3):  # how a body is cut, and who is connected, depends on what comes first
        if ours != theirs:
            processed = ask_ext_proc([case], tmp_path / f"ext_proc{attempt}", open_engine(), FULL_DUPLEX)
            ours, theirs = both(case, processed, ask([case], tmp_path / f"envoy{attempt}"))
    assert ours == theirs


def both(case: Case, processed, answers: dict[str, Answer]) -> tuple[list[object], list[object]]:
    (ours, logs, _), theirs = processed[case.name], answers[case.name]
    return told(ours, case, logs), told(theirs, case, [message for _, _, message in theirs.logs])
