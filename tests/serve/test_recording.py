"""``proxywasm serve`` records requests, which replay alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.cli.conftest import command
from tests.recording.test_carriers import PROBE, recordings
from tests.serve.conftest import PANICS, Served

__all__ = ["command"]


def test_serve_records(on_engine: Callable[..., Served], engine, tmp_path, command):
    directory = tmp_path / "recordings"
    served = on_engine(
        PANICS, filter_config="response_headers", record=directory, record_failures=True, redact="x-token"
    )
    served.get("/x", headers={"x-token": "very secret"})
    [recording] = recordings(directory, 1)
    assert (recording.engine, dict(recording.events[0].given["headers"])[b"x-token"]) == (engine.name, b"*1*********")
    assert recording.outcome["failure"].startswith("panics failed in proxy_on_response_headers: ")
    again = command("replay", next(directory.glob("*.json")))
    assert (again.out, again.err) == (f"{engine.name}: the same, {len(recording.lines)} lines\n", "")


def test_serve_says_what_it_cannot_do(serve: Callable[..., Served], tmp_path):
    (tmp_path / "file").write_text("")
    served = serve(PROBE, record=tmp_path / "file" / "in it")
    assert served.stop() != 0
    assert f"cannot record in {tmp_path}/file/in it: Not a directory" in served.log
