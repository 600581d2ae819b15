"""``proxywasm serve``: filters in front of any HTTP server. Needs the extra ``serve`` and `proxywasm_dataplane`.

`proxywasm_dataplane` serves HTTP, in a separate `thread`. A `generation` is one configuration with its filters in that
thread; a `driver` performs their effects. The event loop next to it (`application`) does everything but requests: it
loads, reloads, and serves the admin port (`admin`: ``/metrics`` and a page). `server` runs all this in one process or
several.
"""
