import ure

IGNORECASE = I = 2
MULTILINE = M = 8
DOTALL = S = 16


class error(ValueError):
    pass


def _both(c):
    return "[%s%s]" % (c.lower(), c.upper()) if c.isalpha() else c


def _class(text, at, ignore):
    """The class of characters that begins at `at`, and where it ends."""
    end = at + 1
    if text[end : end + 1] == "^":
        end += 1
    if text[end : end + 1] == "]":
        end += 1
    while end < len(text) and text[end] != "]":
        end += 2 if text[end] == "\\" else 1
    if end >= len(text):
        raise error("unterminated character set at position %d" % at)
    inner = text[at + 1 : end]
    # MicroPython takes a bracket that comes first for the end.
    negative = "^" if inner[:1] == "^" else ""
    if inner[len(negative) : len(negative) + 1] == "]":
        inner = negative + "\\]" + inner[len(negative) + 1 :]
    if "\\-" in inner:
        inner = inner.replace("\\-", "") + "-"
    if ignore:
        other, i = "", 1 if inner[:1] == "^" else 0
        while i < len(inner):
            if inner[i] == "\\":
                i += 2
            else:
                c = inner[i]
                other += c.lower() if c.isupper() else c.upper()
                i += 1
        inner += other
    return "[" + inner + "]", end + 1


def _translate(text, flags):
    """A pattern in terms of MicroPython, and the numbers of its named groups."""
    out, names, groups, opened = [], {}, 0, []
    ignore = flags & IGNORECASE
    if flags & MULTILINE:
        raise error("re.MULTILINE does not work in a packed filter; split the lines")
    at = 0
    while at < len(text):
        c = text[at]
        if c == "\\":
            n = text[at + 1 : at + 2]
            if n in ("b", "B", "A", "Z") or n.isdigit():
                raise error("\\%s does not work in the patterns of a packed filter" % n)
            special = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
            out.append(special.get(n, "\\" + n))
            at += 2
        elif c == "[":
            part, at = _class(text, at, ignore)
            out.append(part)
        elif c == "(":
            opened.append(len(out))
            if text[at + 1 : at + 4] == "?P<":
                end = text.index(">", at)
                groups += 1
                names[text[at + 4 : end]] = groups
                out.append("(")
                at = end + 1
            elif text[at + 1 : at + 3] == "?:":
                out.append("(?:")
                at += 3
            elif text[at + 1 : at + 2] == "?":
                raise error("%s does not work in the patterns of a packed filter" % text[at : at + 3])
            else:
                groups += 1
                out.append("(")
                at += 1
        elif c == ")":
            begin = opened.pop()
            out[begin:] = ["".join(out[begin:]) + ")"]
            at += 1
        elif c == "{" and text[at + 1 : at + 2].isdigit():
            end = text.index("}", at)
            low, comma, high = text[at + 1 : end].partition(",")
            atom = out.pop()
            if "(" in atom.replace("(?:", "").replace("\\(", "") and not atom.startswith("["):
                raise error("a group with a count has to be (?:…) in a packed filter")
            least = int(low)
            if not comma:
                out.append(atom * least)
            elif high:
                out.append(atom * least + (atom + "?") * (int(high) - least))
            else:
                out.append(atom * least + atom + "*")
            at = end + 1
        else:
            if c == "." and not flags & DOTALL:
                c = "[^\n]"
            out.append(_both(c) if ignore else c)
            at += 1
    return "".join(out), names, groups


class Match:
    def __init__(self, found, pattern, text, offset):
        self._found = found
        self._offset = offset
        self.re = pattern
        self.string = text

    def _number(self, group):
        if isinstance(group, int):
            return group
        if group not in self.re.groupindex:
            raise IndexError("no such group")
        return self.re.groupindex[group]

    def group(self, *groups):
        if len(groups) > 1:
            return tuple([self._found.group(self._number(group)) for group in groups])
        return self._found.group(self._number(groups[0]) if groups else 0)

    __getitem__ = group

    def groups(self, default=None):
        found = [self._found.group(i + 1) for i in range(self.re.groups)]
        return tuple([default if one is None else one for one in found])

    def groupdict(self, default=None):
        return {name: default if self.group(name) is None else self.group(name) for name in self.re.groupindex}

    def start(self, group=0):
        return self._offset + self._found.start(self._number(group))

    def end(self, group=0):
        return self._offset + self._found.end(self._number(group))

    def span(self, group=0):
        return self.start(group), self.end(group)


class Pattern:
    def __init__(self, pattern, flags):
        self.pattern = pattern
        self.flags = flags
        text = pattern.decode() if isinstance(pattern, bytes) else pattern
        text, self.groupindex, self.groups = _translate(text, flags)
        self._start = text.startswith("^")
        if isinstance(pattern, bytes):
            text = text.encode()
        try:
            self._pattern = ure.compile(text)
        except ValueError:
            raise error("the pattern %r does not work in a packed filter" % pattern)
        self._text = text
        self._full = None

    def match(self, text):
        found = self._pattern.match(text)
        return Match(found, self, text, 0) if found else None

    def search(self, text, at=0):
        if at and self._start:
            return None
        found = self._pattern.search(text[at:] if at else text)
        return Match(found, self, text, at) if found else None

    def fullmatch(self, text):
        if self._full is None:
            whole = b"(?:" + self._text + b")$" if isinstance(self._text, bytes) else "(?:" + self._text + ")$"
            self._full = ure.compile(whole)
        found = self._full.match(text)
        return Match(found, self, text, 0) if found else None

    def finditer(self, text):
        at = 0
        while at <= len(text):
            found = self.search(text, at)
            if found is None:
                return
            yield found
            at = found.end() if found.end() > found.start() else found.end() + 1

    def findall(self, text):
        if not self.groups:
            return [m.group() for m in self.finditer(text)]
        empty = text[:0]
        return [m.groups(empty)[0] if self.groups == 1 else m.groups(empty) for m in self.finditer(text)]

    def split(self, text, maxsplit=0):
        out, at = [], 0
        for m in self.finditer(text):
            out.append(text[at : m.start()])
            out.extend(m.groups())
            at = m.end()
            if maxsplit:
                maxsplit -= 1
                if not maxsplit:
                    break
        return out + [text[at:]]

    def sub(self, new, text, count=0):
        return self.subn(new, text, count)[0]

    def subn(self, new, text, count=0):
        out, at, times = [], 0, 0
        for m in self.finditer(text):
            out.append(text[at : m.start()])
            out.append(new(m) if callable(new) else _expand(new, m))
            at = m.end()
            times += 1
            if times == count:
                break
        out.append(text[at:])
        return text[:0].join(out), times


def _expand(new, m):
    if isinstance(new, bytes) or "\\" not in new:
        return new
    parts = new.split("\\")
    out = [parts[0]]
    for part in parts[1:]:
        if part.startswith("g<"):
            name, _, rest = part[2:].partition(">")
            out.append((m.group(int(name) if name.isdigit() else name) or "") + rest)
        elif part[:1].isdigit():
            out.append((m.group(int(part[0])) or "") + part[1:])
        elif part[:1] == "n":
            out.append("\n" + part[1:])
        else:
            out.append("\\" + part)
    return "".join(out)


_known = {}


def compile(pattern, flags=0):
    if isinstance(pattern, Pattern):
        return pattern
    key = pattern, flags
    if key not in _known:
        if len(_known) > 100:
            _known.clear()
        _known[key] = Pattern(pattern, flags)
    return _known[key]


def match(pattern, text, flags=0):
    return compile(pattern, flags).match(text)


def search(pattern, text, flags=0):
    return compile(pattern, flags).search(text)


def fullmatch(pattern, text, flags=0):
    return compile(pattern, flags).fullmatch(text)


def findall(pattern, text, flags=0):
    return compile(pattern, flags).findall(text)


def finditer(pattern, text, flags=0):
    return compile(pattern, flags).finditer(text)


def sub(pattern, new, text, count=0, flags=0):
    return compile(pattern, flags).sub(new, text, count)


def subn(pattern, new, text, count=0, flags=0):
    return compile(pattern, flags).subn(new, text, count)


def split(pattern, text, maxsplit=0, flags=0):
    return compile(pattern, flags).split(text, maxsplit)


def escape(text):
    special = "()[]{}?*+-|^$\\.&~# \t\n\r\v\f"
    if isinstance(text, bytes):
        return escape(text.decode()).encode()
    return "".join(["\\" + c if c in special else c for c in text])
