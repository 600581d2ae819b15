"""``proxywasm serve``: filters in front of any HTTP server. Needs the extra ``serve`` and `proxywasm_dataplane`.

HTTP is spoken by `proxywasm_dataplane`, in a `thread` of its own; a `generation` of the configuration has the filters
there, and a `driver` that performs what they want done. The event loop beside it does all that is not a request
(`application`): it loads, reloads, and shows it all on the admin port (`admin`: ``/metrics`` and a page). `server` runs
that in one process or several.
"""
