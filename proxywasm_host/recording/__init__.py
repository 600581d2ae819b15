"""Records requests of any carrier to files, and replays them without the outside world.

    app = ProxyWasmMiddleware(app, ["auth.wasm"], record=Record("recordings", failures_only=True))

    replay = Recording.load("recordings/20260102T030405.678-17-1-503.json").replay(["fixed.wasm"])
    assert replay.first_difference is None

`proxywasm serve --record DIR` and ``proxywasm run --record FILE`` make recordings, ``proxywasm replay FILE`` runs them.
"""

from proxywasm_host.recording.file_format import Event, Recording
from proxywasm_host.recording.record import Record
from proxywasm_host.recording.replay import Replay, replay

__all__ = ["Event", "Record", "Recording", "Replay", "replay"]
