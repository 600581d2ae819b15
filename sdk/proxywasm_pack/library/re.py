# Patterns are compiled here to numbers, which the runtime's module `_re` matches (runtime/port/regex.c describes them).
from array import array

import _re

A = ASCII = 256
I = IGNORECASE = 2
M = MULTILINE = 8
S = DOTALL = 16
U = UNICODE = 32
X = VERBOSE = 64
NOFLAG = 0

MATCH, CHAR, ANY, ALL, SET, SPLIT, JUMP, SAVE, AT, LOOK, BACK, REPEAT, MARK, LOOP = range(14)
BEGIN, BEGIN_OF_LINE, END, END_OF_LINE, END_OF_TEXT, BOUNDARY, NO_BOUNDARY, BOUNDARY_ASCII, NO_BOUNDARY_ASCII = range(9)
AHEAD, NOT_AHEAD, BEHIND, NOT_BEHIND, ATOMIC = range(5)
NEGATED, WORD, NOT_WORD = 1, 2, 4
SEARCH, FULL, NOT_EMPTY = 1, 2, 4
GREEDY, LAZY, POSSESSIVE = range(3)
ENDLESS, LAST, LARGEST = 0xFFFFFFFF, 0x10FFFF, 100000

DIGITS = [(48, 57)]
WORDS = [(48, 57), (65, 90), (95, 95), (97, 122)]
SPACES = [(9, 13), (32, 32)]
MORE_SPACES = [(28, 31), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)]
ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
LETTERS = {"a": A, "i": I, "m": M, "s": S, "u": U, "x": X}


class error(Exception):
    def __init__(self, msg, pattern=None, pos=None):
        super().__init__(msg if pos is None else "%s at position %d" % (msg, pos))
        self.msg = msg
        self.pattern = pattern
        self.pos = pos


def _complement(ranges):
    out, low = [], 0
    for begin, end in sorted(ranges):
        if low < begin:
            out.append((low, begin - 1))
        low = end + 1
    return [*out, (low, LAST)]


class Parser:
    """Parses a pattern to a tree: tuples whose first item is the kind of node."""

    def __init__(self, pattern, flags):
        self.pattern = pattern
        self.is_text = isinstance(pattern, str)
        self.text = pattern if self.is_text else "".join([chr(c) for c in pattern])
        self.size = len(self.text)
        self.at = 0
        self.names = {}
        self.groups = 0
        self.open = []
        self.behind = None  # the number of groups before the look-behind that is being read
        self.widths = {}
        self.outer = {}  # the groups around a group
        self.flags = flags
        while self.text[self.at : self.at + 2] == "(?":
            end = self.at + 2
            while self.text[end : end + 1] in LETTERS:
                end += 1
            if end == self.at + 2 or self.text[end : end + 1] != ")":
                break
            for letter in self.text[self.at + 2 : end]:
                self.flags |= LETTERS[letter]
            self.at = end + 1
        self.tree = self.alternation(self.flags)
        if self.at < self.size:
            raise self.wrong("unbalanced parenthesis")

    def wrong(self, words, at=None):
        return error(words, self.pattern, self.at if at is None else at)

    def peek(self, size=1):
        return self.text[self.at : self.at + size]

    def take(self, text):
        if self.peek(len(text)) == text:
            self.at += len(text)
            return True
        return False

    def until(self, end, what):
        begin, at = self.at, self.text.find(end, self.at)
        if at < 0:
            raise self.wrong("missing %s, unterminated name" % end, begin)
        if at == begin:
            raise self.wrong("missing " + what, begin)
        self.at = at + 1
        return self.text[begin:at]

    def alternation(self, flags):
        ways = [self.sequence(flags)]
        while self.take("|"):
            ways.append(self.sequence(flags))
        return ways[0] if len(ways) == 1 else ("or", ways)

    def sequence(self, flags):
        nodes = []
        while self.at < self.size and self.peek() not in "|)":
            begin, c = self.at, self.peek()
            if flags & X and c in " \t\n\r\f\v":
                self.at += 1
                continue
            if flags & X and c == "#":
                end = self.text.find("\n", self.at)
                self.at = self.size if end < 0 else end + 1
                continue
            times = self.times()
            if times is None:
                node = self.atom(flags)
                if node is not None:
                    nodes.append(node)
                continue
            if not nodes or nodes[-1][0] == "at":
                raise self.wrong("nothing to repeat", begin)
            if nodes[-1][0] == "repeat":
                raise self.wrong("multiple repeat", begin)
            way = LAZY if self.take("?") else POSSESSIVE if self.take("+") else GREEDY
            nodes[-1] = ("repeat", nodes[-1], times[0], times[1], way)
        return ("sequence", nodes)

    def times(self):
        """The bounds of the repetition that begins here; None if none does."""
        c = self.peek()
        if c in "*+?":
            self.at += 1
            return (1 if c == "+" else 0), (1 if c == "?" else ENDLESS)
        if c != "{":
            return None
        begin, end = self.at, self.text.find("}", self.at)
        low, comma, high = self.text[begin + 1 : end].partition(",") if end > 0 else ("", "", "x")
        if (low and not low.isdigit()) or (high and not high.isdigit()) or not (low or comma):
            return None
        self.at = end + 1
        least = int(low or "0")
        most = int(high) if high else ENDLESS if comma else least
        if least > most:
            raise self.wrong("min repeat greater than max repeat", begin + 1)
        return least, most

    def atom(self, flags):
        begin, c = self.at, self.peek()
        self.at += 1
        if c == ".":
            return ("all",) if flags & S else ("any",)
        if c == "^":
            return ("at", BEGIN_OF_LINE if flags & M else BEGIN)
        if c == "$":
            return ("at", END_OF_LINE if flags & M else END)
        if c == "(":
            return self.group(flags, begin)
        if c == "[":
            return self.set(flags, begin)
        if c == "\\":
            return self.escape(flags, begin)
        return self.character(ord(c), flags)

    def character(self, c, flags):
        letter = chr(c)
        if flags & I and c < 128 and letter.isalpha():
            return self.ranges([(ord(letter.lower()), ord(letter.lower())), (ord(letter.upper()), ord(letter.upper()))])
        return ("char", c)

    def group(self, flags, begin):
        name = None
        if self.take("?"):
            if self.take("P<"):
                name = self.until(">", "group name")
                if not name.isidentifier():
                    raise self.wrong("bad character in group name %r" % name, begin + 4)
                if name in self.names:
                    raise self.wrong(
                        "redefinition of group name %r as group %d; was group %d" % (name, self.groups + 1, self.names[name]),
                        begin + 4,
                    )
            elif self.take("P="):
                name = self.until(")", "group name")
                if name not in self.names:
                    raise self.wrong("unknown group name %r" % name, begin + 4)
                return self.reference(self.names[name], flags, begin + 4, begin + 4)
            elif self.take("#"):
                end = self.text.find(")", self.at)
                if end < 0:
                    raise self.wrong("missing ), unterminated comment", begin)
                self.at = end + 1
                return None
            elif self.take("("):
                raise self.wrong("a condition, (?(…)…), does not work in a packed filter", begin)
            else:
                for mark, kind in (("=", AHEAD), ("!", NOT_AHEAD), ("<=", BEHIND), ("<!", NOT_BEHIND), (">", ATOMIC)):
                    if self.take(mark):
                        if kind not in (BEHIND, NOT_BEHIND):
                            return ("look", kind, self.inside(flags, begin))
                        outer = self.behind
                        self.behind = self.groups if outer is None else outer
                        node = self.inside(flags, begin)
                        self.behind = outer
                        return ("look", kind, node)
                return self.inside(self.scoped(flags, begin), begin)
        self.groups += 1
        number = self.groups
        if name is not None:
            self.names[name] = number
        self.outer[number] = list(self.open)
        self.open.append(number)
        node = self.inside(flags, begin)
        self.open.remove(number)
        self.widths[number] = self.width(node)
        return ("group", number, node)

    def scoped(self, flags, begin):
        """`flags` changed as (?i-m:…) requires; (?:…) changes none."""
        on = True
        while not self.take(":"):
            c = self.peek()
            self.at += 1
            if c == "-" and on:
                on = False
            elif c in LETTERS and c:
                flags = flags | LETTERS[c] if on else flags & ~LETTERS[c]
            elif c == ")" and self.at > begin + 3:
                raise self.wrong("global flags not at the start of the expression", begin)
            else:
                c += self.peek() if c == "\\" else ""
                raise self.wrong("unknown extension ?" + c if c else "unexpected end of pattern", begin + 1)
        return flags

    def inside(self, flags, begin):
        node = self.alternation(flags)
        if not self.take(")"):
            raise self.wrong("missing ), unterminated subpattern", begin)
        return node

    def reference(self, number, flags, at, begin):
        if number > self.groups:
            raise self.wrong("invalid group reference %d" % number, at)
        if number in self.open:
            raise self.wrong("cannot refer to an open group", begin)
        if self.behind is not None and number > self.behind:
            raise self.wrong("cannot refer to group defined in the same lookbehind subpattern")
        return ("back", number, 1 if flags & I else 0)

    def escape(self, flags, begin):
        c = self.peek()
        self.at += 1
        if c == "":
            raise self.wrong("bad escape (end of pattern)", begin)
        if c == "A":
            return ("at", BEGIN)
        if c == "Z":
            return ("at", END_OF_TEXT)
        if c in "bB":
            return ("at", (BOUNDARY if c == "b" else NO_BOUNDARY) + (2 if flags & A else 0))
        if c in "dDsSwW":
            return self.ranges([], [c], flags)
        if c in "123456789":
            more = self.peek()
            third = self.text[self.at + 1 : self.at + 2]
            if more.isdigit():
                if c in "0123" and more in "01234567" and third and third in "01234567":
                    self.at += 2
                    return self.character(int(c + more + third, 8), flags)
                self.at += 1
                c += more
            return self.reference(int(c), flags, begin + 1, begin)
        return self.character(self.code(c, begin), flags)

    def code(self, c, begin):
        """The character that an escape stands for, whose backslash is at `begin`."""
        if c == "0":
            digits = ""
            while len(digits) < 2 and self.peek() and self.peek() in "01234567":
                digits += self.peek()
                self.at += 1
            return int("0" + digits, 8)
        size = {"x": 2, "u": 4, "U": 8}.get(c, 0) if self.is_text or c == "x" else 0
        if size:
            digits = ""
            while len(digits) < size and self.peek() and self.peek() in "0123456789abcdefABCDEF":
                digits += self.peek()
                self.at += 1
            if len(digits) < size:
                raise self.wrong("incomplete escape \\%s%s" % (c, digits), begin)
            return int(digits, 16)
        if c in ESCAPES and c != "b":
            return ESCAPES[c]
        if c.isalpha() and ord(c) < 128:
            raise self.wrong("bad escape \\" + c, begin)
        return ord(c)

    def set(self, flags, begin):
        negated = self.take("^")
        ranges, categories, first = [], [], True
        while True:
            at = self.at
            c = self.peek()
            if c == "":
                raise self.wrong("unterminated character set", begin)
            if c == "]" and not first:
                self.at += 1
                break
            first = False
            low = self.member(categories)
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member(categories)
                if low is None or high is None or low > high:
                    raise self.wrong("bad character range " + self.text[at : self.at], at)
                ranges.append((low, high))
            elif low is not None:
                ranges.append((low, low))
        if flags & I:
            for low, high in list(ranges):
                for a, z, other in ((65, 90, 32), (97, 122, -32)):
                    if max(low, a) <= min(high, z):
                        ranges.append((max(low, a) + other, min(high, z) + other))
        return self.ranges(ranges, categories, flags, negated)

    def member(self, categories):
        """A character of a set; None for a category, which is added to `categories`."""
        begin, c = self.at, self.peek()
        self.at += 1
        if c != "\\":
            return ord(c) if c else None
        c = self.peek()
        self.at += 1
        if c == "":
            raise self.wrong("bad escape (end of pattern)", begin)
        if c in "dDsSwW":
            categories.append(c)
            return None
        if c == "b":
            return 8
        if c in "1234567":
            self.at -= 1
            return self.code("0", begin)
        return self.code(c, begin)

    def ranges(self, ranges, categories=(), flags=0, negated=False):
        out, mark, is_unicode = list(ranges), 0, self.is_text and not flags & A
        spaces = SPACES + MORE_SPACES if is_unicode else SPACES
        for c in categories:
            if c in "dD":
                out += DIGITS if c == "d" else _complement(DIGITS)
            elif c in "sS":
                out += spaces if c == "s" else _complement(spaces)
            elif not is_unicode:
                out += WORDS if c == "w" else _complement(WORDS)
            else:
                mark |= WORD if c == "w" else NOT_WORD
                out += WORDS if c == "w" else [(a, min(z, 127)) for a, z in _complement(WORDS)]
        bits = [0, 0, 0, 0]
        for low, high in out:
            for c in range(low, min(high, 127) + 1):
                bits[c // 32] |= 1 << c % 32
        if negated:
            bits = [word ^ 0xFFFFFFFF for word in bits]
        beyond = sorted([(max(low, 128), high) for low, high in out if high > 127])
        return ("set", mark | (NEGATED if negated else 0), bits, beyond)

    def width(self, node):
        """The minimum and maximum number of characters that a node matches."""
        kind = node[0]
        if kind in ("char", "any", "all", "set"):
            return 1, 1
        if kind == "group":
            return self.width(node[2])
        if kind == "back":
            return self.widths.get(node[1], (0, ENDLESS))
        if kind == "look":
            return self.width(node[2]) if node[1] == ATOMIC else (0, 0)
        if kind == "repeat":
            low, high = self.width(node[1])
            return low * node[2], ENDLESS if ENDLESS in (high, node[3]) and high else high * node[3]
        if kind == "at":
            return 0, 0
        lows, highs = [], []
        for one in node[1]:
            low, high = self.width(one)
            lows.append(low)
            highs.append(high)
        if kind == "or":
            return min(lows), max(highs)
        return sum(lows), ENDLESS if ENDLESS in highs else sum(highs)

    def program(self):
        """The tree compiled to numbers."""
        self.out = [0, 1 if self.is_text else 0]
        self.slots = 2 * self.groups
        self.emit(self.tree)
        self.out.append(MATCH)
        self.out[0] = self.slots
        return array("I", self.out)

    def emit(self, node):
        out, kind = self.out, node[0]
        if len(out) > LARGEST:
            raise error("the pattern is too large for a packed filter")
        if kind == "char":
            out += [CHAR, node[1]]
        elif kind == "any":
            out.append(ANY)
        elif kind == "all":
            out.append(ALL)
        elif kind == "set":
            out += [SET, node[1]] + node[2] + [len(node[3])]
            for low, high in node[3]:
                out += [low, high]
        elif kind == "at":
            out += [AT, node[1]]
        elif kind == "back":
            out += [BACK, node[1], node[2]]
        elif kind == "group":
            out += [SAVE, 2 * node[1] - 2]
            self.emit(node[2])
            out += [SAVE, 2 * node[1] - 1]
        elif kind == "sequence":
            for one in node[1]:
                self.emit(one)
        elif kind == "or":
            ends = []
            for one in node[1][:-1]:
                split = self.split()
                self.emit(one)
                ends.append(len(out) + 1)
                out += [JUMP, 0]
                out[split + 2] = len(out)
            self.emit(node[1][-1])
            for end in ends:
                out[end] = len(out)
        elif kind == "look":
            low, high = self.width(node[2]) if node[1] in (BEHIND, NOT_BEHIND) else (0, 0)
            if low != high:
                raise error("look-behind requires fixed-width pattern", self.pattern)
            self.look(node[1], low, node[2])
        elif node[4] == POSSESSIVE:
            self.look(ATOMIC, 0, node[:4] + (GREEDY,))
        else:
            self.repeat(node[1], node[2], node[3], node[4])

    def look(self, kind, behind, node):
        begin = len(self.out)
        self.out += [LOOK, kind, behind, 0]
        self.emit(node)
        self.out.append(MATCH)
        self.out[begin + 3] = len(self.out)

    def split(self):
        """Add a choice whose first branch follows it, and return its position."""
        at = len(self.out)
        self.out += [SPLIT, at + 3, 0]
        return at

    def leave(self, split, way):
        """Make the second branch of a choice begin here. A lazy choice tries this branch first."""
        self.out[split + 2] = len(self.out)
        if way == LAZY:
            self.out[split + 1], self.out[split + 2] = self.out[split + 2], self.out[split + 1]

    def repeat(self, node, least, most, way):
        out = self.out
        if node[0] in ("char", "any", "all", "set"):
            begin = len(out)
            out += [REPEAT, 1 if way == LAZY else 0, least, most, 0]
            self.emit(node)
            out[begin + 4] = len(out)
            return
        for _ in range(least):
            self.emit(node)
        if most == ENDLESS:
            split = self.split()
            if self.width(node)[0]:
                self.emit(node)
                out += [JUMP, split]
            else:
                slot = self.slots
                self.slots += 1
                out += [MARK, slot]
                self.emit(node)
                out += [LOOP, slot, split]
            self.leave(split, way)
            return
        splits = []
        for _ in range(most - least):
            splits.append(self.split())
            self.emit(node)
        for split in splits:
            self.leave(split, way)


class Match:
    def __init__(self, pattern, text, spans, limits=None):
        self.re = pattern
        self.string = text
        self._spans = spans
        self._limits = limits

    @property
    def pos(self):
        return self._limits[0] if self._limits else 0

    @property
    def endpos(self):
        return self._limits[1] if self._limits else len(self.string)

    def _number(self, group):
        number = self.re.groupindex.get(group) if isinstance(group, str) else group
        if number is None or not 0 <= number <= self.re.groups:
            raise IndexError("no such group")
        return number

    def _text(self, number, default=None):
        begin = self._spans[2 * number]
        end = self._spans[2 * number + 1]
        return default if begin < 0 or end < 0 else _re.part(self.string, begin, end)

    def group(self, *groups):
        if len(groups) > 1:
            return tuple([self._text(self._number(group)) for group in groups])
        return self._text(self._number(groups[0]) if groups else 0)

    __getitem__ = group

    def groups(self, default=None):
        return tuple([self._text(i + 1, default) for i in range(self.re.groups)])

    def groupdict(self, default=None):
        return {name: self._text(number, default) for name, number in self.re.groupindex.items()}

    def start(self, group=0):
        at = self._spans[2 * self._number(group)]
        return at if at < 0 else _re.index(self.string, at)

    def end(self, group=0):
        at = self._spans[2 * self._number(group) + 1]
        return at if at < 0 else _re.index(self.string, at)

    def span(self, group=0):
        return self.start(group), self.end(group)

    @property
    def regs(self):
        return tuple([self.span(i) for i in range(self.re.groups + 1)])

    @property
    def lastindex(self):
        last, place = None, -1
        for i in range(1, self.re.groups + 1):
            begin, end = self._spans[2 * i], self._spans[2 * i + 1]
            if end >= place and end >= 0 and begin >= 0 and last not in self.re._outer[i]:
                last, place = i, end
        return last

    @property
    def lastgroup(self):
        last = self.lastindex
        for name, number in self.re.groupindex.items():
            if number == last:
                return name
        return None

    def expand(self, template):
        return _expand(_template(template, self.re), self, template[:0])

    def __repr__(self):
        return "<re.Match object; span=%r, match=%r>" % (self.span(), self.group())


class Pattern:
    def __init__(self, pattern, flags):
        parser = Parser(pattern, flags)
        self.pattern = pattern
        self.flags = parser.flags | (U if parser.is_text and not parser.flags & A else 0)
        self.groups = parser.groups
        self.groupindex = parser.names
        self._is_text = parser.is_text
        self._outer = parser.outer
        self._code = parser.program()

    def _find(self, text, mode, pos, endpos):
        if isinstance(text, str) != self._is_text:
            kinds = ("string", "bytes-like object") if self._is_text else ("bytes", "string-like object")
            raise TypeError("cannot use a %s pattern on a %s" % kinds)
        if not pos and endpos is None:
            spans = _re.match(self._code, text, 0, -1, mode)
            return None if spans is None else Match(self, text, spans)
        begin, end = _re.position(text, pos), -1 if endpos is None else _re.position(text, endpos)
        spans = _re.match(self._code, text, begin, end, mode)
        return None if spans is None else Match(self, text, spans, (max(pos, 0), len(text) if endpos is None else endpos))

    def match(self, string, pos=0, endpos=None):
        return self._find(string, 0, pos, endpos)

    def search(self, string, pos=0, endpos=None):
        return self._find(string, SEARCH, pos, endpos)

    def fullmatch(self, string, pos=0, endpos=None):
        return self._find(string, FULL, pos, endpos)

    def finditer(self, string, pos=0, endpos=None):
        found = self._find(string, SEARCH, pos, endpos)
        end = -1 if endpos is None else _re.position(string, endpos)
        while found is not None:
            yield found
            begin, at = found._spans[0], found._spans[1]
            spans = _re.match(self._code, string, at, end, SEARCH | NOT_EMPTY if begin == at else SEARCH)
            found = None if spans is None else Match(self, string, spans, found._limits)

    def findall(self, string, pos=0, endpos=None):
        out, empty = [], string[:0]
        for found in self.finditer(string, pos, endpos):
            if self.groups < 2:
                out.append(found._text(self.groups, empty))
            else:
                out.append(found.groups(empty))
        return out

    def split(self, string, maxsplit=0):
        out, at = [], 0
        if maxsplit < 0:
            return [string]
        for found in self.finditer(string):
            out.append(_re.part(string, at, found._spans[0]))
            out.extend(found.groups())
            at = found._spans[1]
            if maxsplit == 1:
                break
            maxsplit -= 1
        out.append(_re.part(string, at, -1))
        return out

    def sub(self, repl, string, count=0):
        return self.subn(repl, string, count)[0]

    def subn(self, repl, string, count=0):
        out, at, times, empty = [], 0, 0, string[:0]
        template = None if callable(repl) else _template(repl, self)
        for found in self.finditer(string):
            out.append(_re.part(string, at, found._spans[0]))
            out.append(repl(found) if template is None else _expand(template, found, empty))
            at = found._spans[1]
            times += 1
            if times == count:
                break
        if not times:
            return string, 0
        out.append(_re.part(string, at, -1))
        return empty.join(out), times

    def __repr__(self):
        return "re.compile(%r)" % (self.pattern,)


def _template(text, pattern):
    """The parts of a replacement: text, and numbers of groups."""
    if isinstance(text, (bytes, bytearray)):
        if b"\\" not in text:
            return [bytes(text)]
        parts = _template("".join([chr(c) for c in text]), pattern)
        return [one if isinstance(one, int) else bytes([ord(c) for c in one]) for one in parts]
    out, at = [], 0
    while True:
        begin = text.find("\\", at)
        if begin < 0:
            out.append(text[at:])
            return out
        out.append(text[at:begin])
        c = text[begin + 1 : begin + 2]
        at = begin + 2
        if c == "g":
            end = text.find(">", at)
            if text[at : at + 1] != "<":
                raise error("missing <", text, at)
            if end < 0:
                raise error("missing >, unterminated name", text, at + 1)
            name = text[at + 1 : end]
            if name.isdigit():
                out.append(_group(int(name), pattern, text, at + 1))
            elif name in pattern.groupindex:
                out.append(pattern.groupindex[name])
            else:
                raise IndexError("unknown group name %r" % name)
            at = end + 1
        elif c == "0" or (c.isdigit() and text[at : at + 2].isdigit() and len(text[at : at + 2]) == 2):
            digits = c
            while len(digits) < 3 and text[at : at + 1] and text[at : at + 1] in "01234567":
                digits += text[at]
                at += 1
            out.append(chr(int(digits, 8)))
        elif c.isdigit():
            if text[at : at + 1].isdigit():
                c += text[at]
                at += 1
            out.append(_group(int(c), pattern, text, begin + 1))
        elif c in ESCAPES:
            out.append(chr(ESCAPES[c]))
        elif c == "" or c.isalpha():
            raise error("bad escape \\" + c if c else "bad escape (end of pattern)", text, begin)
        else:
            out.append("\\" + c)


def _group(number, pattern, text, at):
    if number > pattern.groups:
        raise error("invalid group reference %d" % number, text, at)
    return number


def _expand(template, found, empty):
    if len(template) == 1:
        return template[0]
    return empty.join([found._text(one, empty) if isinstance(one, int) else one for one in template])


_known = {}


def compile(pattern, flags=0):
    if isinstance(pattern, Pattern):
        if flags:
            raise ValueError("cannot process flags argument with a compiled pattern")
        return pattern
    key = pattern, flags
    found = _known.get(key)
    if found is None:
        if len(_known) > 100:
            _known.clear()
        found = _known[key] = Pattern(pattern, flags)
    return found


def purge():
    _known.clear()


def match(pattern, string, flags=0):
    return compile(pattern, flags).match(string)


def search(pattern, string, flags=0):
    return compile(pattern, flags).search(string)


def fullmatch(pattern, string, flags=0):
    return compile(pattern, flags).fullmatch(string)


def findall(pattern, string, flags=0):
    return compile(pattern, flags).findall(string)


def finditer(pattern, string, flags=0):
    return compile(pattern, flags).finditer(string)


def sub(pattern, repl, string, count=0, flags=0):
    return compile(pattern, flags).sub(repl, string, count)


def subn(pattern, repl, string, count=0, flags=0):
    return compile(pattern, flags).subn(repl, string, count)


def split(pattern, string, maxsplit=0, flags=0):
    return compile(pattern, flags).split(string, maxsplit)


def escape(pattern):
    special = "()[]{}?*+-|^$\\.&~# \t\n\r\v\f"
    if isinstance(pattern, (bytes, bytearray)):
        return escape(pattern.decode()).encode()
    return "".join(["\\" + c if c in special else c for c in pattern])
