"""Filters in applications, HTTP clients and mitmproxy. Each integration is thin, because the core does no I/O.

A new carrier is a pump around `exchange`, derived from the one in `asynchronous` or `synchronous`. `framing` corrects
``content-length``, `headers` makes the headers that filters see, `heads` the heads that are sent on. This module
imports nothing.
"""
