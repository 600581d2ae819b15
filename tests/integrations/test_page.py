"""Every program of docs/integrations.md runs, in front of an application that answers.

`test_from_nothing` runs those of the page's first section.
"""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

from tests.integrations import test_wsgi as of_wsgi
from tests.integrations.asgi import get, respond

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8").partition("\n## ASGI\n")[2]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def hello(scope, receive, send):
    await respond(send, 200, [], b"Hello.")


def run(program: str, monkeypatch, **given: object) -> dict:
    monkeypatch.chdir(ROOT)
    names = {"__name__": __name__, **given}
    exec(program, names)
    return names


@pytest.mark.parametrize("program", [program for program in PROGRAMS if "integrations.asgi" in program])
def test_asgi(program, monkeypatch):
    names = run(program.replace("https://idp.example", "http://127.0.0.1:1"), monkeypatch, app=hello)
    server = anyio.run(lambda: get(names["app"], headers=[("authorization", "Bearer t")]))
    assert server.status == (403 if "idp.example" in program else 200)  # nobody is there to ask
    if "ready" in names:
        assert names["ready"]() is False  # with the event loop went its worker


@pytest.mark.parametrize("program", [program for program in PROGRAMS if "integrations.wsgi" in program])
def test_wsgi(program, monkeypatch):
    app = run(program, monkeypatch, app=of_wsgi.hello)["app"]
    assert of_wsgi.get(app).body == b"Hello."
    getattr(app, "wsgi_app", app).close()  # Flask keeps it there


@pytest.mark.parametrize(
    "program", [program for program in PROGRAMS if "import Exchange" in program], ids=["by hand", "in an event loop"]
)
def test_a_carrier_of_your_own(program, monkeypatch, capsys):
    run(program, monkeypatch)
    upstream, head, body = capsys.readouterr().out.splitlines()
    assert upstream.startswith(
        "to upstream: RequestHead(method=b'GET', path=b'/a?b', scheme=b'http', headers=[(b'host',"
    )
    assert "(b'x-wasm', b'hello')" in upstream
    assert head.startswith("to the client: ResponseHead(status=200, headers=[")
    assert body == "to the client: ResponseBody(data=b'Hello.', end_stream=True)"


def test_there_is_no_program_that_is_not_run():
    kinds = (
        "integrations.asgi",
        "integrations.wsgi",
        "AsyncDriver",
        "import Exchange",
    )  # the last by the tests of what README prints
    assert [program for program in PROGRAMS if not any(kind in program for kind in kinds)] == []
    assert PROGRAMS
