"""``ngx.re``: PCRE, with a limit on backtracking, which ends matches that would take too long."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from proxywasm_host import remedy

try:
    import pcre2
except ModuleNotFoundError as error:
    raise remedy.missing("lua", error) from None

__all__ = ["all_matches", "search"]

FLAGS = {"i": pcre2.IGNORECASE, "m": pcre2.MULTILINE, "s": pcre2.DOTALL, "x": pcre2.VERBOSE}
NO_EFFECT = "joaduUJD"
"""Options without effect here: compiled expressions are always kept, ``a`` is another call, text is bytes."""


@lru_cache(maxsize=1024)
def _compiled(pattern: str, options: str) -> Any:
    flags = 0
    for option in options:
        if option in FLAGS:
            flags |= FLAGS[option]
        elif option not in NO_EFFECT:
            raise ValueError(f'unknown flag "{option}" (flags "{options}")')
    return pcre2.compile(pattern.encode("latin-1"), flags)


def _found(match: Any) -> dict[str, Any]:
    """A match with positions as in Lua; they are ``False`` for a group that has not matched."""
    spans = [match.span(group) for group in range(match.re.groups + 1)]
    return {
        "first": [start + 1 if start >= 0 else False for start, _ in spans],
        "last": [end if end >= 0 else False for _, end in spans],
        "names": dict(match.re.groupindex),
    }


def _message(error: Exception) -> str:
    return f"pcre2_compile() failed: {error}" if isinstance(error, pcre2.PatternError) else str(error)


def search(subject: str, pattern: str, options: str, position: int) -> tuple[dict[str, Any] | None, str | None]:
    """The first match at or after a position (from 1), if there is one; or ``None`` and an error as text."""
    try:
        compiled = _compiled(pattern, options)
        find = compiled.match if "a" in options else compiled.search
        match = find(subject.encode("latin-1"), max(position - 1, 0))
    except (pcre2.LibraryError, ValueError) as error:
        return None, _message(error)
    return (_found(match) if match else None), None


def all_matches(subject: str, pattern: str, options: str, limit: int) -> tuple[list[dict[str, Any]] | None, str | None]:
    """All matches that do not overlap, at most `limit` if it is not 0; or ``None`` and an error as text."""
    found: list[dict[str, Any]] = []
    try:
        for match in _compiled(pattern, options).finditer(subject.encode("latin-1")):
            found.append(_found(match))
            if len(found) == limit:
                break
    except (pcre2.LibraryError, ValueError) as error:
        return None, _message(error)
    return found, None
