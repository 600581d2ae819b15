"""Drivers perform the effects of one host: callouts, ticks, queues, and what comes out of streams at any time.

`asynchronous` is the one for asyncio and trio, `threaded` the one for programs with threads; `clusters` says where
callouts go, `http` makes them, `filters` names what is to be loaded. Nothing is imported here: each needs what it uses.
"""
