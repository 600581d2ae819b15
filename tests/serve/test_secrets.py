"""What the page does not show, though filters read it."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxywasm_host.recording.secrets import MASK, Secrets
from tests.serve.in_process import serving
from tests.support import FILTERS

HIDDEN = MASK.decode()


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey", "x-auth-token", "x-csrf-token",
        "x-amz-security-token", "x-access-token", "x-goog-iap-jwt-assertion", "x-session-id", "x-secret", "x-client-password", "x-signature",
    ],
)  # fmt: skip
def test_headers_with_credentials_have_no_value(name):
    assert Secrets().headers([(name.encode(), b"v"), (b"x-other", b"v")]) == [(name.encode(), MASK), (b"x-other", b"v")]


@pytest.mark.parametrize(
    "name",
    [":path", ":authority", "content-type", "x-request-id", "accept", "www-authenticate", "x-authority", "tokenizer"],
)
def test_other_headers_have_their_value(name):
    assert Secrets().headers([(name.encode(), b"value")]) == [(name.encode(), b"value")]


@pytest.mark.parametrize(
    "word",
    [
        "token", "Access_Token", "authorization", "api-key", "APIKEY", "cookie", "cookies", "credential", "credentials", "jwt",
        "password", "passwd", "secret", "session", "sessionid", "session-id", "sid", "signature", "Sig",
    ],
)  # fmt: skip
def test_each_word_for_a_credential_is_seen_in_bodies(word):
    body = f'?{word}=hidden1 {{"x-{word}": "hidden2"}}'.encode()
    assert Secrets().content(body) == f'?{word}={HIDDEN} {{"x-{word}": "{HIDDEN}"}}'.encode()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("Bearer abc.def-1", f"Bearer {HIDDEN}"),
        ("sent BASIC dXNlcjpwdw== on", f"sent BASIC {HIDDEN} on"),
        ("x eyJhbGciOi.eyJzdWIi.sig-_1 y", f"x {HIDDEN} y"),
        ("/x?a=1&access_token=abc&b=2", f"/x?a=1&access_token={HIDDEN}&b=2"),
        ("/x?api_key=abc", f"/x?api_key={HIDDEN}"),
        (
            '{"user": "a", "password": "b c", "id_token":"d"}',
            f'{{"user": "a", "password": "{HIDDEN}", "id_token":"{HIDDEN}"}}',
        ),
        ("/tokens?page=2", "/tokens?page=2"),
        ("the bearer", "the bearer"),
    ],
)
def test_what_looks_like_a_credential_is_none_that_is_shown(data, shown):
    assert Secrets().content(data.encode()).decode() == shown


def test_what_a_credential_was_is_not_shown_elsewhere():
    secrets = Secrets()
    secrets.learn(
        [
            (b"authorization", b"Token swordfish-1"),
            (b"cookie", b"a=1; sid=mackerel-2"),
            (b"set-cookie", b"id=haddock-3; Path=/"),
            (b"x", b"visible-4"),
        ]
    )
    told = secrets.content(b"swordfish-1 mackerel-2 haddock-3 visible-4 a=1").decode()
    assert told == f"{HIDDEN} {HIDDEN} {HIDDEN} visible-4 a=1"


SCRIPT = """
@on_request_headers
get_header_map_value 0 authorization
get_header_map_pairs 0
get_property request%00headers%00authorization
say I saw swordfish-1 of {padding}
add_header_map_value 0 x-copy swordfish-1
replace_header_map_value 0 authorization Bearer%20mackerel-2
say and mackerel-2
http_call up :method=GET&:path=/&:authority=x&authorization=Bearer%20haddock-3 body-haddock-3 "" 1000
set_property x%00token sturgeon-4
@on_response_headers
add_header_map_value 2 set-cookie sid=flounder-5
send_local_response 403 details body-of-swordfish-1 x-api-key=anchovy-6 -1
{last}
"""


@pytest.mark.parametrize("last", ["return 0", "trap"])
def test_the_page_shows_no_credentials(engine, last):
    """Whatever a filter does with them, and when it fails."""

    async def test() -> None:
        script = SCRIPT.format(last=last, padding="x" * 380)
        given = {
            "upstream": {"url": "http://127.0.0.1:9"}, "clusters": {"up": {"url": "http://127.0.0.1:9"}}, "engine": engine.name,
            "filters": [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script, "failure_policy": "fail_closed"}],
            "sample": 1,
        }  # fmt: skip
        async with serving(given) as served:
            await served.ask(
                b"GET /x?token=salmon-7 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer swordfish-1\r\n"
                b"Cookie: a=1; sid=%b\r\nX-Seen: visible-8\r\n\r\n" % (b"herring-9" * 60)
            )
            shown = json.dumps(await served.application.live(0))
        for secret in ("swordfish", "mackerel", "haddock", "sturgeon", "flounder", "anchovy", "salmon", "herring"):
            assert secret not in shown
        assert all(word in shown for word in (HIDDEN, "visible-8", "I saw", "x-copy", "GET /x?token="))
        assert ("last hostcalls" in shown) is (last == "trap")

    asyncio.run(test())
