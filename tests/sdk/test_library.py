"""The standard library of packed filters answers as CPython's, whatever it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import proxywasm_pack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxywasm_host.testing import Harness
from tests.sdk import library

ANSWER = """

from proxywasm import HttpFilter, Response, register

class Answer(HttpFilter):
    async def on_request_headers(self, request):
        return Response(200, body=[called(name, arguments) for name, arguments in await request.json()])

register(Answer)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "library.py"
    path.write_text(Path(library.__file__).read_text() + ANSWER)
    return proxywasm_pack.pack(path)


@pytest.fixture
def asked(module, engine):
    """A function: what the packed library answers to questions, each a name and its arguments."""
    with Harness(engine) as harness:
        f = harness(module)

        def ask(questions):
            return f.post("/", body=json.dumps(questions).encode()).response.json()

        yield ask


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Co", "Cf", "Zs", "Zl", "Zp", "Mn"]), max_size=20)
ASCII = st.text(st.sampled_from("abcxyzAB019 -_=.,;:%&+/@?#~'\"\\(){}[]<>\n\t"), max_size=24)
WORDS = st.text(st.sampled_from("aabbcAB01 \n-,"), max_size=12)
WHOLE = st.integers(-(2**70), 2**70)
FIGURES = st.lists(st.integers(0, 5), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXT | ASCII, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8
)
ALMOST_JSON = st.builds(
    lambda value, at, what: (text := json.dumps(value))[: at % (len(text) + 1)] + what + text[at % (len(text) + 1) :],
    VALUES,
    st.integers(0, 60),
    st.sampled_from(["", "", ",", "]", "}", '"', "{", "x", "\\", "\\u12", "\\ud83d\\ude00", "01", " ", "\n", "\t", "-", "NaN", ":"]),
)
WITHOUT_HALVES = ALMOST_JSON.filter(lambda text: "\\\\ud" not in text and "\\ud" not in text.replace("\\ud83d\\ude00", ""))  # of a pair: UTF-8 has none
PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=6)
MOMENTS = st.tuples(
    st.integers(1970, 2200), st.integers(1, 12), st.integers(1, 28), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59),
    st.sampled_from([0, 1, 500, 123456, 999999]), st.integers(-1439, 1439), st.integers(-(10**8), 10**8),
)  # fmt: skip
UNIT = st.sampled_from(
    ["a", "b", "é", "世", "1", " ", ".", r"\w", r"\d", r"\S", r"[ab]", r"[^a-c]", r"[\w-]", "^", "$", r"\b", r"\B", r"\1", "()", "(?P<n>a)"]
)
COUNTS = st.sampled_from(["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{,2}?", "*+"])
MADE = st.recursive(
    st.builds(lambda unit, times: unit + (times if unit not in "^$" else ""), UNIT, COUNTS),
    lambda inner: st.builds("{}{}".format, inner, inner)
    | st.builds("{}|{}".format, inner, inner)
    | st.builds("({}{}){}".format, st.sampled_from(["", "", "?:", "?=", "?!", "?<=", "?<!", "?>", "?i:"]), inner, st.sampled_from(["", "", "*", "+", "?", "+?"])),
    max_leaves=7,
)
QUESTIONS = {
    "digest": st.tuples(st.sampled_from(library.HASHES), st.lists(st.text(max_size=200), max_size=3)),
    "mac": st.tuples(st.sampled_from(library.HASHES), st.text(max_size=150), TEXT),
    "encoded": st.tuples(st.text(max_size=20)),
    "decoded": st.tuples(st.text(st.sampled_from("QUJabc019+/-_==\n"), max_size=12)),
    "json_read": st.tuples(WITHOUT_HALVES | ASCII),
    "json_written": st.tuples(VALUES, st.none() | st.integers(0, 3)),
    "json_hooks": st.tuples(VALUES),
    "url": st.tuples(st.sampled_from(["", "http://", "https://u:p@h.x:80", "HTTP://Host", "//h/", "mailto:"]).flatmap(lambda p: ASCII.filter(lambda t: not set("[]\n\t") & set(t)).map(lambda t: p + t))),
    "url_port": st.tuples(st.sampled_from(["http://h", "http://h:80/x", "//h:65536", "//h:x", "//u:p@[::1]:8", "h:8", "//h:"])),
    "url_joined": st.tuples(st.sampled_from(["http://a/b/c/d?q#f", "http://a", "/x/y"]), st.sampled_from(["g", "./g", "../g", "../../g", "/g", "//h/x", "?y", "#s", "g?y#s", "", "http:g", "../../../g", "g/./h", "g/../h", "http://z/q", ".", ".."])),
    "url_text": st.tuples(TEXT | ASCII),
    "query": st.tuples(st.text(st.sampled_from("ab=&+%20c"), max_size=16)),
    "query_made": st.tuples(PAIRS),
    "pattern": st.tuples(st.integers(0, len(library.PATTERNS) - 1), WORDS | ASCII),
    "pattern_made": st.tuples(MADE, st.sampled_from([0, 0, 2, 8, 16, 26, 256]), st.text(st.sampled_from("aabbAB1é世 -_.\n"), max_size=9)),
    "pattern_flags": st.tuples(WORDS | ASCII),
    "words": st.tuples(st.text(st.sampled_from("aabBc1 _-\t\n.,"), max_size=12), st.integers(0, 14)),
    "numbers": st.tuples(WHOLE, WHOLE),
    "moment": MOMENTS,
    "duration": st.tuples(st.integers(-(10**13), 10**13), st.integers(-(10**13), 10**13), st.integers(-9, 9)),
    "iso": st.tuples(st.sampled_from(["2024-02-29", "2023-02-29", "2024-01-01T10:20", "2024-01-01 10:20:30.5", "20240101T102030Z", "2024-01-01T10:20:30+02:00", "2024-13-01", "x", "2024-01-01T25:00"])),
    "parsed_time": st.tuples(st.sampled_from(["10/Oct/2000:13:55:36 -0700", "Tue, 15 Nov 1994 08:12:31 GMT", "1994-11-15", "nonsense"]), st.sampled_from(["%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %Z", "%Y-%m-%d", "%Y-%m"])),
    "counted": st.tuples(FIGURES, FIGURES),
    "ordered": st.tuples(PAIRS, st.sampled_from("abcd")),
    "queued": st.tuples(FIGURES, st.none() | st.integers(1, 4)),
    "folded": st.tuples(FIGURES),
    "iterated": st.tuples(FIGURES, st.integers(0, 5)),
    "enumerated": st.tuples(st.sampled_from(["r", "g", "x", ""])),
    "data": st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
    "packed_numbers": st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
def test_answers_are_those_of_cpython(asked, name):
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(QUESTIONS[name], min_size=1, max_size=12))
    def compare(questions):
        assert asked([(name, q) for q in questions]) == [library.called(name, json.loads(json.dumps(q))) for q in questions]

    compare()


def test_every_question_is_asked():
    functions = {name for name, value in vars(library).items() if getattr(value, "__module__", "") == library.__name__ and not isinstance(value, type)}
    assert functions == {*QUESTIONS, "called"}
