"""The page on the admin port, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.serve.browser import Browser
from tests.serve.conftest import AUTH, HEADERS, PANICS
from tests.support import FILTERS

PROBE = str(FILTERS / "c/probe_0_2_1.wasm")
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\"'&"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.eval(f"[...document.querySelectorAll({selector!r})].map(each => each.textContent)")


def expand(browser: Browser, text: str) -> None:
    browser.eval(f"[...document.querySelectorAll('.row')].find(row => row.textContent.includes({text!r})).click()")


def test_what_the_filters_do_is_shown_while_it_happens(serve, browser):
    filters = [{"file": HEADERS, "configuration": "hello"}, {"file": AUTH, "configuration": "secret"}]
    served = serve(settings={"filters": filters})
    browser.open(served.admin)
    browser.wait("document.querySelectorAll('.filter.running').length === 2")
    assert texts(browser, ".filter .name") == ["headers", "auth"]
    assert texts(browser, ".nothing") == ["No request yet."]
    served.get("/allowed?x=1", headers={"authorization": "Bearer secret", "x-remove-me": "please"})
    served.get("/denied")
    browser.wait("document.querySelectorAll('.row').length === 2")
    assert texts(browser, ".row .status") == ["401", "200"]
    assert texts(browser, ".row .what") == ["GET /denied", "GET /allowed?x=1"]
    browser.wait("document.querySelectorAll('#plot circle.whole').length === 2")
    expand(browser, "/allowed")
    assert "auth" in texts(browser, ".step .plugin")
    assert "removesx-remove-me" in "".join(texts(browser, ".calls"))
    assert "+ x-wasm: hello" in texts(browser, ".diff .came")
    assert "- x-remove-me: please" in texts(browser, ".diff .went")
    assert "CONTINUE" in texts(browser, ".step .action")
    browser.eval("document.querySelector('#find').value = 'denied'; document.querySelector('#find').oninput()")
    assert texts(browser, ".row .what") == ["GET /denied"]
    assert browser.console == []


def test_nobody_is_traced_when_nobody_looks(serve, browser):
    served = serve(HEADERS, settings={"sample": 1000000})
    for _ in range(3):
        served.get()
    assert not any(name.startswith("proxywasm_callbacks_total") for name in served.metrics())
    browser.open(served.admin)
    browser.wait("document.querySelectorAll('.filter').length === 1")
    served.get()
    assert served.metrics()['proxywasm_callbacks_total{callback="on_request_headers",plugin="headers"}'] == 1
    browser.open("about:blank")
    time.sleep(3.5)
    served.get()
    assert served.metrics()['proxywasm_callbacks_total{callback="on_request_headers",plugin="headers"}'] == 1


def test_what_a_hostile_filter_says_is_text(serve, browser):
    """In its name, its headers, its log lines, its details and in what it is asked for."""
    script = (
        f"@on_request_headers\nadd_header_map_value 0 x-evil {EVIL.replace(' ', '_')}\nlog 2 {EVIL.replace(' ', '_')}\n"
    )
    served = serve(settings={"filters": [{"file": PROBE, "name": EVIL, "configuration": script}]})
    browser.open(served.admin)
    browser.wait("document.querySelectorAll('.filter').length === 1")
    served.get("/<script>window.hacked=1</script>", headers={"x-more": EVIL})
    browser.wait("document.querySelectorAll('.row').length === 1")
    expand(browser, "script")
    assert texts(browser, ".filter .name") == [EVIL]
    assert any("<img_src=x_onerror" in text for text in texts(browser, ".diff .came"))
    time.sleep(0.3)
    assert browser.eval("window.hacked") is None
    assert browser.eval("document.querySelectorAll('main img, main script').length") == 0
    assert browser.console == []


def test_a_filter_that_fails_is_shown_with_its_reason(serve, browser):
    served = serve(PANICS, filter_config="request_headers")
    served.get()
    browser.open(served.admin)
    browser.wait("document.querySelector('.filter.failed pre')?.textContent.includes('failed in a callback')")
    assert texts(browser, ".tile.alarm strong") == ["1"]


def test_a_server_that_ends_and_one_of_several_processes(serve, browser):
    served = serve(HEADERS, workers=2)
    browser.open(served.admin)
    browser.wait("document.querySelector('#about')?.textContent.includes('2 workers')")
    browser.wait("document.querySelector('.filter .facts')?.textContent.includes('2 VMs')")
    assert served.stop() == 0
    browser.wait("document.querySelector('#said')?.textContent === 'no connection'")


def test_the_policy_of_the_page_lets_nothing_else_run(serve, browser):
    served = serve(HEADERS)
    policy = httpx2.get(served.admin).headers["content-security-policy"]
    assert "'unsafe" not in policy
    browser.open(served.admin)
    browser.wait("document.querySelectorAll('.filter').length === 1")
    browser.eval(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert browser.eval("window.ran") is None
