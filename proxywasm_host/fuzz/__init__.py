"""Fuzzing of a filter: random requests, and checks that hold for each of them.

`fuzz` makes examples with Hypothesis and checks each; what it returns is the smallest that broke a check.
"""

from __future__ import annotations

from proxywasm_host.fuzz.check import CHECKS, Finding, Subject
from proxywasm_host.fuzz.search import fuzz

__all__ = ["CHECKS", "Finding", "Subject", "fuzz"]
