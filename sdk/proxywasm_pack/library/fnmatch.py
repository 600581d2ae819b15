import re


def translate(pat):
    out, at = [], 0
    while at < len(pat):
        c = pat[at]
        at += 1
        end = pat.find("]", at + (pat[at : at + 1] == "!") + 1) if c == "[" else -1
        if c == "*":
            out.append(".*")
        elif c == "?":
            out.append(".")
        elif end > 0:
            inner = pat[at:end].replace("\\", "\\\\")
            out.append("[" + ("^" + inner[1:] if inner[:1] == "!" else "\\" + inner if inner[:1] == "^" else inner) + "]")
            at = end + 1
        else:
            out.append(re.escape(c))
    return "(?s:" + "".join(out) + ")\\Z"


def fnmatchcase(name, pat):
    return re.match(translate(pat), name) is not None


fnmatch = fnmatchcase


def filter(names, pat):
    return [name for name in names if fnmatchcase(name, pat)]
