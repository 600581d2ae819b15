"""Filters in other people's programs: each integration is thin, for the core does no I/O. Nothing is imported here."""
