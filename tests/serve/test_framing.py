"""The table of tests/framing.py, as ``serve`` has it on the wire."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

from tests.framing import CASES, Case, headers_of
from tests.serve.test_reload import loaded, put
from tests.support import FILTERS

SCRIPTS = list({case.script: None for case in CASES.values()})


def answering(case: Case):
    """Upstream answers so."""
    status, framing, body = case.answers

    async def answer(request, reader, writer) -> bool:
        await request.read(reader)
        head = [f"HTTP/1.1 {status} Fine", *(f"{name}: {value}" for name, value in headers_of(framing)), "", ""]
        writer.write("\r\n".join(head).encode())
        writer.write(b"".join(parts(framing, body)))
        return True  # closed without a word, it would race with the next request

    return answer


def parts(framing: str, body: str) -> list[bytes]:
    """A body as it is sent."""
    sent = [part.encode() for part in body.split("|") if part]
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in sent] + [b"0\r\n\r\n"] if framing == "chunked" else sent


def framing_of(get) -> str:
    length = get("content-length")
    return "chunked" if get("transfer-encoding") else f"length {length}" if length is not None else "nothing"


def ask(url: str, case: Case) -> tuple[tuple[int, str, str], list[str]]:
    """What the client gets, and the names of the headers."""
    method, framing, body = case.asked
    with closing(http.client.HTTPConnection(url.partition("://")[2], timeout=30)) as connection:
        connection.putrequest(method, "/")
        for name, value in headers_of(framing):
            connection.putheader(name, value)
        connection.endheaders()
        for part in parts(framing, body):
            connection.send(part)
        response = connection.getresponse()
        got = response.status, framing_of(response.headers.get), response.read().decode()
        return got, [name.lower() for name in response.headers]


def test_each_case(serve, origin, tmp_path):
    file = tmp_path / "chain.json"

    def chain(script: str) -> str:
        filter = {"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script}
        return json.dumps({"filters": [filter], "watch": True})

    put(file, chain(SCRIPTS[0]))
    served = serve(config=file, access_log="off")
    told, expected = {}, {}
    for number, script in enumerate(SCRIPTS):
        if number:
            put(file, chain(script))
            loaded(served, number)
        for name, case in CASES.items():
            if case.script == script:
                origin.requests.clear()
                origin.answers["/"] = answering(case)
                client, names = ask(served.url, case)
                seen = [(each.method, framing_of(each.__getitem__), each.body.decode()) for each in origin.requests]
                told[name] = client, seen, sorted({*case.absent}.intersection(names))
                expected[name] = case.client, [case.upstream] if case.upstream else [], []
    assert told == expected
