"""Filters in other programs. Each integration is thin, because the core does no I/O. Nothing is imported here.

A new carrier is a pump around `exchange`, derived from the one in `asynchronous` or `synchronous`. `framing` corrects
``content-length``, `heads` makes the messages that can be sent, `headers` those that filters see.
"""
