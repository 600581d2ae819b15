"""The table of docs/carriers.md: what each carrier carries, as the tests that are marked `carries` show it.

``python -m tests.integrations.test_carriers_page`` writes it. A cell without a test has a reason here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/carriers.md"
CARRIERS = (
    "serve",
    "ext-proc",
    "asgi",
    "wsgi",
    "aiohttp",
    "httpx",
    "requests",
    "urllib3",
    "aiohttp client",
    "mitmproxy",
)
WHAT = (
    "local responses",
    "callouts",
    "request bodies part by part",
    "response bodies part by part",
    "request trailers",
    "response trailers",
    "HTTP/2",
    "WebSocket",
    "TCP",
)
OF_HTTP = "only HTTP requests"
REASONS = {
    ("asgi", "WebSocket"): "bypasses the filters",
    ("wsgi", "response bodies part by part"): "depends on the server",
    ("ext-proc", "callouts"): "as `serve`, whose driver it uses",
    ("ext-proc", "HTTP/2"): "depends on Envoy",
    ("ext-proc", "WebSocket"): "the part that Envoy sends",
    ("ext-proc", "TCP"): "ext_proc is for HTTP",
    ("asgi", "request trailers"): "ASGI has none",
    ("asgi", "HTTP/2"): "depends on the server",
    ("asgi", "TCP"): OF_HTTP,
    ("wsgi", "request trailers"): "WSGI has none",
    ("wsgi", "response trailers"): "WSGI has none",
    ("wsgi", "HTTP/2"): "depends on the server",
    ("wsgi", "WebSocket"): "WSGI has none",
    ("wsgi", "TCP"): OF_HTTP,
    ("aiohttp", "request trailers"): "aiohttp has none",
    ("aiohttp", "response trailers"): "aiohttp has none",
    ("aiohttp", "HTTP/2"): "aiohttp has none",
    ("aiohttp", "TCP"): OF_HTTP,
    ("httpx", "request trailers"): "httpx has none",
    ("httpx", "response trailers"): "httpx has none",
    ("httpx", "HTTP/2"): "depends on the transport",
    ("httpx", "WebSocket"): "httpx has none",
    ("httpx", "TCP"): OF_HTTP,
    ("requests", "request trailers"): "requests has none",
    ("requests", "response trailers"): "requests has none",
    ("requests", "HTTP/2"): "requests has none",
    ("requests", "WebSocket"): "requests has none",
    ("requests", "TCP"): OF_HTTP,
    ("urllib3", "request trailers"): "urllib3 has none",
    ("urllib3", "response trailers"): "urllib3 has none",
    ("urllib3", "HTTP/2"): "urllib3 has none",
    ("urllib3", "WebSocket"): "urllib3 has none",
    ("urllib3", "TCP"): OF_HTTP,
    ("aiohttp client", "request trailers"): "aiohttp has none",
    ("aiohttp client", "response trailers"): "aiohttp has none",
    ("aiohttp client", "HTTP/2"): "aiohttp has none",
    ("aiohttp client", "TCP"): OF_HTTP,
}


def marked() -> Iterator[tuple[str, str, str]]:
    """What is marked: the carrier, what it carries, and the test that shows it."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.carries" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.carries":
                    carrier, *what = (ast.literal_eval(each) for each in mark.args)
                    yield from ((carrier, each, f"{file.relative_to(ROOT)}::{node.name}") for each in what)


def table() -> str:
    """The table, in Markdown."""
    shown = {(carrier, what) for carrier, what, _ in marked()}
    lines = [f"| | {' | '.join(CARRIERS)} |", f"|---|{'---|' * len(CARRIERS)}"]
    for what in WHAT:
        cells = ["yes" if (carrier, what) in shown else REASONS[carrier, what] for carrier in CARRIERS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with the table of now."""
    return re.sub(r"^\|.*(?:\n\|.*)*", table().replace("\\", r"\\"), page, count=1, flags=re.MULTILINE)


def test_the_page_has_what_tests_show():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "write it: python -m tests.integrations.test_carriers_page"


def test_every_cell_has_a_test_or_a_reason_and_no_more():
    shown = {(carrier, what) for carrier, what, _ in marked()}
    cells = {(carrier, what) for carrier in CARRIERS for what in WHAT}
    assert shown | set(REASONS) == cells
    assert shown & set(REASONS) == set()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_answers_for_filters(carrier):
    assert any(each == (carrier, "local responses") for each in ((name, what) for name, what, _ in marked()))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
