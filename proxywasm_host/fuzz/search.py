"""Searches for an example that breaks a check, with Hypothesis, which also minimises it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from proxywasm_host.fuzz.check import CHECKS, Finding, Subject, check, check_memory
from proxywasm_host.fuzz.example import Example, Reply
from proxywasm_host.runtime.filter_config import as_bytes

__all__ = ["examples_for", "fuzz"]

METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH")
NAMES = ("accept", "authorization", "content-type", "cookie", "user-agent", "x-forwarded-for", "x-a")
VALUES = ("", "0", "-1", "application/json", "application/grpc", "text/html", "a, b", "%")
ODD = ("\udcff\udcfe", "é", "\udc80", "\t")
"""Values that HTTP allows and few programs expect, such as invalid UTF-8."""
BODIES = (b"", b"{}", b'{"a": [1, null]}', b"\0", b"\xff\xfe", b"foo", b"<a href='x'>")
OWN = re.compile(rb"x-[a-z0-9][a-z0-9-]{0,30}")
"""Names of headers that a module seems to use."""
MOST = 24
LARGEST = Example(
    "POST", "/a?b=c", (("user-agent", "fuzz"), ("x-a", "1" * 200)), (b"a" * 2000, b"b" * 2000), (), 200,
    (("content-type", "text/html"),), (b"c" * 2000, b"d" * 2000),
)  # fmt: skip
"""The request that is sent repeatedly to check whether memory grows."""


def fuzz(subject: Subject, *, examples: int = 100, seeded: int = 0, without: Collection[str] = ()) -> Finding | None:
    """Search for a request that breaks a check. Returns the smallest one that was found, or ``None``.

    Args:
        subject: the filter. Each example gets a new instance.
        examples: number of requests to try.
        seeded: seed of the search; the same number repeats it.
        without: names of `CHECKS` to leave out.

    Raises: the errors of loading the filter.
    """
    wanted = frozenset(CHECKS) - frozenset(without)
    with subject.harness(subject.engines[0]) as harness:
        harness(subject.filter)

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @seed(seeded)
    @given(examples_for(subject))
    def search(example: Example) -> None:
        check(subject, example, wanted)

    try:
        search()
        if "memory" in wanted:
            replies = {cluster: Reply() for cluster in subject.clusters}
            check_memory(subject, Example(**{**vars(LARGEST), "replies": replies}))
    except Finding as finding:
        return finding
    except Flaky as error:
        found = next((one for one in getattr(error, "exceptions", ()) if isinstance(one, Finding)), None)
        if found is None:
            raise
        return found
    return None


def examples_for(subject: Subject) -> st.SearchStrategy[Example]:
    """A strategy of examples for a filter, whose headers have names that its module contains, among others."""
    code = subject.filter.code
    module = code if isinstance(code, bytes) else Path(code).read_bytes()
    own = [name for name in NAMES if name.encode() in module]
    own += sorted({name.decode() for name in OWN.findall(module)}, key=len)[:MOST]
    text = as_bytes(subject.filter.configuration).decode("utf-8", "replace")
    values = [*VALUES, *([text, f"Bearer {text}"] if 0 < len(text) < 200 and text.isprintable() else [])]
    odd = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=8)
    token = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
    names = st.one_of(*([st.sampled_from(own)] if own else []), st.sampled_from(NAMES), token)
    content = st.one_of(st.sampled_from(values), odd, st.sampled_from(ODD))
    pairs = st.lists(st.tuples(names, content), max_size=4).map(tuple)
    piece = st.one_of(st.sampled_from(BODIES), st.binary(max_size=16))
    chunks = st.builds(_cut, st.lists(piece, max_size=4), st.lists(st.integers(0, 40), max_size=3))
    path = st.one_of(
        st.sampled_from(["/", "/a?b=c", "/%00", "/../x", "*"]), odd.map(lambda text: "/" + text.replace("#", ""))
    )
    replies: dict[str, st.SearchStrategy[Any]] = {cluster: _reply() for cluster in subject.clusters}
    return st.builds(
        Example,
        method=st.sampled_from(METHODS),
        path=path,
        headers=pairs,
        chunks=chunks,
        trailers=st.one_of(st.just(()), pairs),
        status=st.sampled_from([200, 204, 302, 404, 500, 999]),
        response_headers=pairs,
        response_chunks=chunks,
        response_trailers=st.one_of(st.just(()), pairs),
        replies=st.fixed_dictionaries(replies),
        leaves_after=st.one_of(st.none(), st.none(), st.none(), st.integers(1, 4)),
    )


def _cut(pieces: list[bytes], cuts: list[int]) -> tuple[bytes, ...]:
    """A body, cut anywhere; the last chunk may be empty, as in HTTP/1.1."""
    body = b"".join(pieces)
    places = sorted({at % (len(body) + 1) for at in cuts} - {0})
    return tuple(body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)) if body else ()


def _reply() -> st.SearchStrategy[Reply]:
    kinds = st.sampled_from(["answer", "late", "fail", "never"])
    statuses = st.sampled_from([200, 204, 401, 403, 500])
    return st.builds(Reply, kinds, statuses, st.one_of(st.sampled_from(BODIES), st.binary(max_size=8)))
