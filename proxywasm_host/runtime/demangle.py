"""Names of Rust functions as people write them: ``_RNvNtCs…_4core3mem4drop`` is ``core::mem::drop``.

Compilers put mangled names into a module's name section, and backtraces show those. This module reads both of Rust's
schemes, legacy (``_ZN…17h…E``) and v0 (``_R…``), and leaves out hashes. Any other name, for example of C++, does not
change. Nor does a damaged name, or one that is made to be expensive: length and depth are limited.

Source: RFC 2603 (v0), and the rules of rustc for legacy names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

__all__ = ["demangled"]

LONGEST: Final = 4096
"""Most characters of a name that is read, and of the result."""
DEEPEST: Final = 64
"""Most levels of nested types and paths."""

LEGACY: Final = re.compile(r"_{1,3}ZN([0-9][A-Za-z0-9_.$]*)E(?:[.@].*)?", re.ASCII)
HASH: Final = re.compile(r"h[0-9a-f]{16}", re.ASCII)
ESCAPES: Final = {
    "$SP$": "@", "$BP$": "*", "$RF$": "&", "$LT$": "<", "$GT$": ">", "$LP$": "(", "$RP$": ")", "$C$": ",",
}  # fmt: skip
ESCAPE: Final = re.compile(r"\$(?:[A-Z]{1,2}|u[0-9a-f]{1,6})\$|\.\.|\.", re.ASCII)

V0: Final = re.compile(r"_{0,2}R([A-Z][A-Za-z0-9_]*)(?:[.$@].*)?", re.ASCII)
TYPES: Final = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
INTEGERS: Final = frozenset("ahijlmnostxy")
SPECIAL: Final = {"C": "closure", "S": "shim"}
BASE_62: Final = {digit: n for n, digit in enumerate("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")}
LIFETIMES: Final = "abcdefghijklmnopqrstuvwxyz"


def demangled(name: str) -> str:
    """The name as it is written in Rust; the given name, if it has neither form."""
    if len(name) > LONGEST or not name.isascii():
        return name
    try:
        if "ZN" in name[:5]:
            return _legacy(name)
        found = V0.fullmatch(name)
        return _V0(found[1]).symbol() if found else name
    except _Damaged:
        return name


class _Damaged(Exception):
    """The name does not have the form that it seems to have, or is too expensive."""


# -- Legacy ------------------------------------------------------------------------------------------------------------


def _legacy(name: str) -> str:
    found = LEGACY.fullmatch(name)
    if not found:
        raise _Damaged
    text, at, parts = found[1], 0, []
    while at < len(text):
        digits = at
        while text[digits : digits + 1].isdigit():
            digits += 1
        end = digits + int(text[at:digits] or len(text))
        if end > len(text):
            raise _Damaged
        parts.append(text[digits:end])
        at = end
    if len(parts) < 2 or not HASH.fullmatch(parts[-1]):  # a name of C++
        raise _Damaged
    return "::".join(map(_unescaped, parts[:-1]))


def _unescaped(part: str) -> str:
    if part.startswith("_$"):
        part = part[1:]
    return ESCAPE.sub(_character, part)


def _character(escape: re.Match[str]) -> str:
    text = escape[0]
    if text[0] == ".":
        return "::" if text == ".." else "."
    if text[1] == "u":
        code = int(text[2:-1], 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000 or not chr(code).isprintable():
            raise _Damaged
        return chr(code)
    if text not in ESCAPES:
        raise _Damaged
    return ESCAPES[text]


# -- v0 ----------------------------------------------------------------------------------------------------------------


class _V0:
    """Reads one name. Each method reads one production of the grammar and returns its text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._lifetimes = 0
        self._left = LONGEST
        """Characters that may still be read (again for each reference) and written."""

    def symbol(self) -> str:
        """Read the whole name: a path, and the crate that needed it, which is left out of the text."""
        text = self.path(values=True)
        if self._at < len(self._text):
            self.path(values=False)
        if self._at < len(self._text):
            raise _Damaged
        return text

    # -- Letters and numbers -----------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        if not letter:
            raise _Damaged
        self._at += 1
        self._spend(1)
        return letter

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _Damaged

    def _ate(self, letter: str) -> bool:
        if self._peek() != letter:
            return False
        self._next()
        return True

    def _base_62(self) -> int:
        if self._ate("_"):
            return 0
        number = 0
        while (letter := self._next()) != "_":
            number = number * 62 + BASE_62.get(letter, -1 << 64)
            if not 0 <= number < 1 << 64:
                raise _Damaged
        return number + 1

    def _tagged(self, tag: str) -> int:
        """An optional number after a tag; 0 without the tag."""
        return self._base_62() + 1 if self._ate(tag) else 0

    def _decimal(self) -> int:
        digits = self._next()
        if not digits.isdigit():
            raise _Damaged
        while digits != "0" and self._peek().isdigit():
            digits += self._next()
            if len(digits) > 5:
                raise _Damaged
        return int(digits)

    def _identifier(self) -> str:
        encoded = self._ate("u")
        size = self._decimal()
        self._ate("_")
        text = self._text[self._at : self._at + size]
        if len(text) < size:
            raise _Damaged
        self._at += size
        self._spend(size)
        return _punycode(text) if encoded else text

    def _nested(self, read: Callable[[], str]) -> str:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _Damaged
        text = read()
        self._depth -= 1
        self._spend(len(text))
        return text

    def _again(self, read: Callable[[], str]) -> str:
        """Read again at an earlier place, to which a reference points."""
        before = self._at - 1
        to = self._base_62()
        if to >= before:
            raise _Damaged
        here, self._at = self._at, to
        text = self._nested(read)
        self._at = here
        return text

    def _until_end(self, read: Callable[[], str]) -> list[str]:
        items = []
        while not self._ate("E"):
            items.append(self._nested(read))
        return items

    # -- Paths -------------------------------------------------------------------------------------------------------

    def path(self, *, values: bool) -> str:
        """A path of an expression (`values`) or of a type; Rust writes their arguments differently."""
        return self._nested(lambda: self._path(values))

    def _path(self, values: bool) -> str:
        letter = self._next()
        if letter == "C":
            self._tagged("s")
            return self._identifier()
        if letter == "M":
            self._implementation()
            return f"<{self.type()}>"
        if letter == "X":
            self._implementation()
            return f"<{self.type()} as {self.path(values=False)}>"
        if letter == "Y":
            return f"<{self.type()} as {self.path(values=False)}>"
        if letter == "N":
            return self._within(values)
        if letter == "I":
            text = self.path(values=values)
            arguments = ", ".join(self._until_end(self._argument))
            return f"{text}::<{arguments}>" if values else f"{text}<{arguments}>"
        if letter == "B":
            return self._again(lambda: self._path(values))
        raise _Damaged

    def _implementation(self) -> None:
        self._tagged("s")
        self.path(values=False)

    def _within(self, values: bool) -> str:
        kind = self._next()
        if not kind.isalpha():
            raise _Damaged
        outer = self.path(values=values)
        number = self._tagged("s")
        name = self._identifier()
        if kind.isupper():
            called = SPECIAL.get(kind, kind)
            return f"{outer}::{{{called}{':' if name else ''}{name}#{number}}}"
        return f"{outer}::{name}" if name else outer

    def _argument(self) -> str:
        if self._ate("L"):
            return self._lifetime()
        if self._ate("K"):
            return self._constant()
        return self.type()

    def _lifetime(self) -> str:
        index = self._base_62()
        if not index:
            return "'_"
        depth = self._lifetimes - index
        if depth < 0:
            raise _Damaged
        return _lifetime(depth)

    # -- Types -------------------------------------------------------------------------------------------------------

    def type(self) -> str:
        """A type."""
        return self._nested(self._type)

    def _type(self) -> str:
        letter = self._peek()
        if letter in TYPES and letter:
            self._next()
            return TYPES[letter]
        if letter and letter in "CMXYNI":
            return self.path(values=False)
        self._next()
        if letter == "B":
            return self._again(self._type)
        if letter == "A":
            return f"[{self.type()}; {self._constant()}]"
        if letter == "S":
            return f"[{self.type()}]"
        if letter == "T":
            items = self._until_end(self._type)
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if letter in "RQ":
            lifetime = f"{self._lifetime()} " if self._ate("L") else ""
            lifetime = "" if lifetime == "'_ " else lifetime
            return f"&{lifetime}{'mut ' if letter == 'Q' else ''}{self.type()}"
        if letter == "P":
            return f"*const {self.type()}"
        if letter == "O":
            return f"*mut {self.type()}"
        if letter == "F":
            return self._bound(self._function)
        if letter == "D":
            text = self._bound(self._traits)
            if not self._ate("L"):
                raise _Damaged
            lifetime = self._lifetime()
            return text if lifetime == "'_" else f"{text} + {lifetime}"
        raise _Damaged

    def _bound(self, read: Callable[[], str]) -> str:
        """A type that may introduce lifetimes: ``for<'a> …``."""
        count = self._tagged("G")
        self._spend(count)
        before = self._lifetimes
        self._lifetimes += count
        names = [_lifetime(depth) for depth in range(before, before + count)]
        text = read()
        self._lifetimes = before
        return f"for<{', '.join(names)}> {text}" if count else text

    def _function(self) -> str:
        unsafe = "unsafe " if self._ate("U") else ""
        abi = ""
        if self._ate("K"):
            abi = f'extern "{"C" if self._ate("C") else self._identifier().replace("_", "-")}" '
        parameters = ", ".join(self._until_end(self._type))
        result = self.type()
        return f"{unsafe}{abi}fn({parameters})" + ("" if result == "()" else f" -> {result}")

    def _traits(self) -> str:
        return "dyn " + " + ".join(self._until_end(self._trait))

    def _trait(self) -> str:
        text = self.path(values=False)
        while self._ate("p"):
            name = self._identifier()
            bound = f"{name} = {self.type()}"
            text = f"{text[:-1]}, {bound}>" if text.endswith(">") else f"{text}<{bound}>"
        return text

    # -- Constants ---------------------------------------------------------------------------------------------------

    def _constant(self) -> str:
        return self._nested(self._value)

    def _value(self) -> str:
        letter = self._next()
        if letter == "B":
            return self._again(self._value)
        if letter == "p":
            return "_"
        if letter in INTEGERS:
            sign = "-" if self._ate("n") else ""
            return f"{sign}{self._hexadecimal()}"
        if letter == "b":
            number = self._hexadecimal()
            if number > 1:
                raise _Damaged
            return "true" if number else "false"
        if letter == "c":
            number = self._hexadecimal()
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise _Damaged
            return repr(chr(number))
        raise _Damaged

    def _hexadecimal(self) -> int:
        digits = ""
        while (letter := self._next()) != "_":
            if letter not in "0123456789abcdef" or len(digits) > 32:
                raise _Damaged
            digits += letter
        return int(digits or "0", 16)


def _lifetime(depth: int) -> str:
    return f"'{LIFETIMES[depth]}" if depth < len(LIFETIMES) else f"'_{depth}"


def _punycode(text: str) -> str:
    """Rust's form has ``_`` where the usual one has ``-``."""
    plain, _, encoded = text.rpartition("_")
    try:
        return (f"{plain}-{encoded}" if plain else encoded).encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        raise _Damaged from None
