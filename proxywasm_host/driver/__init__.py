"""Drivers perform the effects of one host: callouts, ticks, queues, and effects of streams outside of events.

`asynchronous` is for asyncio and trio, `threaded` for programs with threads. `clusters` are the targets of callouts,
`http` makes HTTP callouts, `filters` loads chains. Nothing is imported here, because each module needs other packages.
"""
