"""Fuzzing of a filter: random requests, and checks that each of them must pass.

`fuzz` makes examples with Hypothesis, checks each, and returns the smallest one that breaks a check.
"""

from __future__ import annotations

from proxywasm_host.fuzz.check import CHECKS, Finding, Subject
from proxywasm_host.fuzz.search import fuzz

__all__ = ["CHECKS", "Finding", "Subject", "fuzz"]
