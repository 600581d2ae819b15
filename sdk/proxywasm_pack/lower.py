"""Rewrites a script in the Python that MicroPython supports, by transforming CPython's syntax tree."""

from __future__ import annotations

import ast
import re
import warnings
from functools import lru_cache
from typing import Any

from proxywasm_pack.snapshot import ScriptError

__all__ = ["lower"]

# Modules for type annotations, of which nothing is needed when a script runs.
TYPES_ONLY = {"typing", "__future__", "abc", "collections.abc", "typing_extensions"}
# Methods that MicroPython's str, bytes, int and list lack: `x.method(…)` becomes a function of library/_lowered.py.
METHODS = {
    "removeprefix", "removesuffix", "title", "capitalize", "swapcase", "zfill", "ljust", "rjust", "casefold", "isalnum",
    "isdecimal", "isnumeric", "isidentifier", "expandtabs", "translate", "bit_length", "bit_count", "center",
    "isascii", "tobytes",
}  # fmt: skip
# Parameters of built-in functions and methods, which MicroPython accepts by position only.
PARAMETERS = {
    "int": ["x", "base"], "sum": ["iterable", "start"], "enumerate": ["iterable", "start"], "round": ["number", "ndigits"],
    "str": ["object", "encoding", "errors"],
}  # fmt: skip
METHOD_PARAMETERS = {"split": ["sep", "maxsplit"], "rsplit": ["sep", "maxsplit"]}
HELPERS = "_lowered"
SHIMS = {"enum.py", "json.py", "dataclasses.py"}
# Built-in exceptions that MicroPython raises under another name.
EXCEPTIONS = {
    "RecursionError": "RuntimeError", "ModuleNotFoundError": "ImportError", "UnicodeDecodeError": "UnicodeError",
    "UnicodeEncodeError": "UnicodeError", "TimeoutError": "OSError", "FileNotFoundError": "OSError",
    "PermissionError": "OSError", "ConnectionError": "OSError", "FloatingPointError": "ArithmeticError",
}  # fmt: skip


@lru_cache(64)
def lower(source: str, name: str) -> tuple[str, list[int]]:
    """The source rewritten for MicroPython, and for each of its lines the author's line.

    Raises: ScriptError, with file and line, for code that cannot be rewritten.
    """
    try:
        tree = ast.parse(source, name)
    except SyntaxError as error:
        raise ScriptError(f"{name}:{error.lineno}: {error.msg}") from None
    lowered = Lowering(name, "Enum" in source and name not in SHIMS).visit(tree)
    lowered.body.insert(0, ast.parse(f"import {HELPERS} as _l").body[0])
    ast.fix_missing_locations(lowered)
    text = ast.unparse(lowered)
    return text, _lines(lowered, text)


def _lines(lowered: ast.AST, text: str) -> list[int]:
    lines = [0] * (text.count("\n") + 1)
    for ours, theirs in zip(ast.walk(lowered), ast.walk(ast.parse(text)), strict=False):
        line = getattr(theirs, "lineno", None)
        if line and not lines[line - 1] and isinstance(ours, ast.stmt | ast.expr):
            lines[line - 1] = getattr(ours, "lineno", 0)
    last = 1
    for i, line in enumerate(lines):
        lines[i] = last = line or last
    return lines


def _name(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _by_place(node: ast.Call, names: list[str]) -> None:
    """Turn keyword arguments into positional ones."""
    given = {k.arg: k.value for k in node.keywords}
    # A call with more positional arguments is of another function: re.split(pattern, text, maxsplit=1).
    if not given or not given.keys() <= set(names[len(node.args) :]):
        return
    last = max(names.index(name) for name in given if name is not None)
    missing: ast.expr = ast.Constant(None)
    node.args += [given.get(name, missing) for name in names[len(node.args) : last + 1]]
    node.keywords = []


def _with_bool(kinds: ast.expr) -> ast.expr:
    """The types for isinstance, with bool next to int: MicroPython's bool is not an int."""
    if isinstance(kinds, ast.Name) and kinds.id == "int":
        return _name("(int, bool)")
    if isinstance(kinds, ast.Tuple) and any(isinstance(kind, ast.Name) and kind.id == "int" for kind in kinds.elts):
        kinds.elts.append(_name("bool"))
    return kinds


def _wrong(pattern: str | bytes, flags: re.RegexFlag) -> str:
    """The error in a pattern, or an empty string."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern, flags)
        except re.error as error:
            return str(error)
    return ""


def _without_types(base: ast.expr) -> ast.expr:
    """``Base`` for ``Base[int]``; an index, as in ``bases[0]``, stays."""
    types = isinstance(base, ast.Subscript) and not isinstance(base.slice, ast.Constant)
    return base.value if isinstance(base, ast.Subscript) and types else base


def _call(function: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(_name(function), list(arguments), [])


class Field:
    """A field of a dataclass: whether ``__init__`` has it as an argument, that argument, and the value it sets."""

    def __init__(self, name: str, value: ast.expr | None, keyword: bool) -> None:
        self.name = name
        self.options: dict[str | None, str] = {}
        self.constant = value is not None
        default = None if value is None else ast.unparse(value)
        if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field":
            self.options = {k.arg: ast.unparse(k.value) for k in value.keywords}
            default = self.options.get("default")
            self.constant = False
        factory = self.options.get("default_factory")
        self.given = self.options.get("init") != "False"
        self.keyword = keyword or self.options.get("kw_only") == "True"
        self.argument = f"{name}=_l.MISSING" if factory else name if default is None else f"{name}={default}"
        fresh = f"({factory})()" if factory else default
        self.made = fresh if not self.given else f"{fresh} if {name} is _l.MISSING else {name}" if factory else name


class Lowering(ast.NodeTransformer):
    """Rewrites each construct that MicroPython lacks or treats differently."""

    def __init__(self, name: str, enumerations: bool) -> None:
        self.name = name
        self.enumerations = enumerations
        self.dataclasses: dict[str, list[Field]] = {}
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"_l{self.count}"

    def refuse(self, node: Any, what: str, instead: str) -> ScriptError:
        return ScriptError(f"{self.name}:{node.lineno}: {what} does not work in a packed filter; {instead}")

    def visit(self, node: ast.AST) -> Any:
        new = super().visit(node)
        for one in new if isinstance(new, list) else [new]:
            if one is not None and one is not node and hasattr(node, "lineno"):
                for inner in ast.walk(one):
                    if isinstance(inner, ast.stmt | ast.expr) and not hasattr(inner, "lineno"):
                        ast.copy_location(inner, node)
                    elif getattr(inner, "generated", False):
                        inner.lineno = node.lineno  # type: ignore[attr-defined]
        return new

    def parse(self, text: str) -> list[ast.stmt]:
        body = ast.parse(text).body
        for statement in body:
            for node in ast.walk(statement):
                if hasattr(node, "lineno"):
                    del node.lineno
        return body

    # Annotations, decorators, imports for types

    def visit_FunctionDef(self, node: Any) -> Any:
        self.generic_visit(node)
        arguments = node.args
        arguments.args = arguments.posonlyargs + arguments.args
        arguments.posonlyargs = []
        node.returns = None
        node.type_params = []
        for one in [*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
            if one is not None:
                one.annotation = None
        node.decorator_list = [
            d for d in node.decorator_list if ast.unparse(d).split(".")[-1] not in {"abstractmethod", "override", "final"}
        ]
        if any(ast.unparse(d).split(".")[-1] == "overload" for d in node.decorator_list):
            return None
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_comprehension(self, node: ast.comprehension) -> Any:
        self.generic_visit(node)
        if node.is_async:
            raise self.refuse(node.target, "async for in a comprehension", "write a loop")
        return node

    def comprehension(self, node: Any) -> Any:
        self.generic_visit(node)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts += [*(c for g in node.generators for c in g.ifs), *(g.iter for g in node.generators[1:])]
        if any(isinstance(inner, ast.Await) for part in parts for inner in ast.walk(part)):
            raise self.refuse(node, "await in a comprehension", "write a loop, or gather(…) what is waited for")
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()

    def visit_TypeAlias(self, node: Any) -> Any:
        return ast.Pass()

    def visit_If(self, node: ast.If) -> Any:
        if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'"}:
            return [self.visit(s) for s in node.orelse] or ast.Pass()
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if node.module in TYPES_ONLY:
            if node.module == "__future__":
                return ast.Pass()
            values = [f"{a.asname or a.name} = getattr(_l, {a.name!r}, None)" for a in node.names]
            return self.parse("\n".join(values))
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        node.names = [a for a in node.names if a.name not in TYPES_ONLY]
        return node if node.names else ast.Pass()

    # Classes

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        decorator = next(
            (d for d in node.decorator_list if ast.unparse(d).split("(")[0].split(".")[-1] == "dataclass"), None
        )
        if decorator is not None:
            node.decorator_list.remove(decorator)
            self.dataclass(node, decorator)
        bases = [ast.unparse(b).split("[")[0].split(".")[-1] for b in node.bases]
        if "NamedTuple" in bases:
            return self.named_tuple(node)
        if self.name != "enum.py" and any(b in {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"} for b in bases):
            names = [t.id for s in node.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)]
            methods = [s.name for s in node.body if isinstance(s, ast.FunctionDef)]
            node.body += self.parse(f"_names = {names!r}\n_own = {methods!r}")
            node.decorator_list.append(_name("_l.enumeration"))
        drop = {"ABC", "Generic", "Protocol"}
        node.bases = [_without_types(b) for b, n in zip(node.bases, bases, strict=True) if n not in drop]
        node.keywords = [k for k in node.keywords if k.arg != "metaclass"]
        node.type_params = []  # type: ignore[attr-defined,unused-ignore]
        if node.keywords:
            raise self.refuse(node, "a class with keyword arguments", "call a function with them after the class")
        own = {s.name for s in node.body if isinstance(s, ast.FunctionDef)}
        if "__init_subclass__" in own:
            raise self.refuse(node, "__init_subclass__", "use a decorator on each derived class")
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def named_tuple(self, node: ast.ClassDef) -> Any:
        fields = [s for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        names = [s.target.id for s in fields if isinstance(s.target, ast.Name)]
        defaults = [s.value for s in fields if s.value]
        base = _call("_l.named_tuple", ast.Constant(node.name), ast.Constant(" ".join(names)))
        base.args.append(ast.Tuple([self.visit(d) for d in defaults], ast.Load()))
        rest = [s for s in node.body if s not in fields]
        if any(isinstance(s, ast.FunctionDef) for s in rest):
            node.bases, node.body = [base], rest
            self.generic_visit(node)
            return node
        return ast.Assign([ast.Name(node.name, ast.Store())], base)

    def dataclass(self, node: ast.ClassDef, decorator: ast.expr) -> None:
        options = {k.arg: ast.unparse(k.value) for k in getattr(decorator, "keywords", [])}
        frozen, keywords = options.get("frozen") == "True", options.get("kw_only") == "True"
        fields: dict[str, Field] = {}
        for base in node.bases:
            fields |= {field.name: field for field in self.dataclasses.get(ast.unparse(base), ())}
        kept = []
        for s in node.body:
            named = isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
            kind = ast.unparse(s.annotation).split(".")[-1] if isinstance(s, ast.AnnAssign) else ""
            if not named or kind.startswith("ClassVar"):
                kept.append(s)
            elif kind == "KW_ONLY":
                keywords = True
            else:
                field = Field(s.target.id, s.value, keywords)  # type: ignore[attr-defined]
                fields[field.name] = field
                if field.constant:
                    kept.append(s)
        self.dataclasses[node.name] = all_fields = list(fields.values())
        own = {s.name for s in node.body if isinstance(s, ast.FunctionDef)}
        arguments = [f.argument for f in all_fields if f.given and not f.keyword]
        if any(f.keyword for f in all_fields):
            arguments += ["*", *(f.argument for f in all_fields if f.given and f.keyword)]
        put = "object.__setattr__(self, {0!r}, {1})" if frozen else "self.{0} = {1}"
        body = [put.format(f.name, f.made) for f in all_fields if f.made]
        if "__post_init__" in own:
            body.append("self.__post_init__()")
        names = tuple(f.name for f in all_fields)
        shown, compared = (tuple(f.name for f in all_fields if f.options.get(o) != "False") for o in ("repr", "compare"))
        methods = {
            "__init__": (", ".join(["self", *arguments]), "\n    ".join(body or ["pass"])),
            "__repr__": ("self", f"return _l.dataclass_repr(self, {shown!r})"),
        }
        mine, theirs = (f"_l.dataclass_values({one}, {compared!r})" for one in ("self", "other"))
        if options.get("eq") != "False":
            methods["__eq__"] = "self, other", f"return type(other) is type(self) and {mine} == {theirs}"
            methods["__hash__"] = "self", f"return hash({mine})"
        if options.get("order") == "True":
            for name, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
                methods[f"__{name}__"] = "self, other", f"return {mine} {sign} {theirs}"
        if frozen:
            methods["__setattr__"] = "self, name, value", "_l.frozen(name)"
        made = [f"def {name}({args}):\n    {text}" for name, (args, text) in methods.items() if name not in own]
        fixed = f"__dataclass_fields__ = {names!r}\n__match_args__ = {names!r}"
        node.body = [*kept, *self.parse("\n".join([fixed, *made]))]

    # Displays with stars

    def sequence(self, node: Any, kind: str) -> Any:
        self.generic_visit(node)
        if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return node
        if not any(isinstance(e, ast.Starred) for e in node.elts):
            return node
        parts: list[ast.expr] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                parts.append(_call("list", element.value))
            elif parts and isinstance(parts[-1], ast.List):
                parts[-1].elts.append(element)
            else:
                parts.append(ast.List([element], ast.Load()))
        whole = parts[0]
        for part in parts[1:]:
            whole = ast.BinOp(whole, ast.Add(), part)
        return whole if kind == "list" else _call(kind, whole)

    def visit_List(self, node: ast.List) -> Any:
        return self.sequence(node, "list")

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        return self.sequence(node, "tuple")

    def visit_Set(self, node: ast.Set) -> Any:
        return self.sequence(node, "set")

    def visit_Dict(self, node: ast.Dict) -> Any:
        self.generic_visit(node)
        if None not in node.keys:
            return node
        parts: list[ast.expr] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                parts.append(value)
            elif parts and isinstance(parts[-1], ast.Dict):
                parts[-1].keys.append(key)
                parts[-1].values.append(value)
            else:
                parts.append(ast.Dict([key], [value]))
        return _call("_l.merge", *parts)

    # Text

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        template, arguments = "", []
        for part in node.values:
            if isinstance(part, ast.Constant):
                template += str(part.value).replace("{", "{{").replace("}", "}}")
                continue
            assert isinstance(part, ast.FormattedValue)
            value = self.visit(part.value)
            if part.conversion == ord("r") or part.conversion == ord("a"):
                value = _call("repr", value)
            elif part.conversion == ord("s"):
                value = _call("str", value)
            if part.format_spec is None:
                template += "{}"
            else:
                value = _call("_l.format", value, self.visit(part.format_spec))
                template += "{}"
            arguments.append(value)
        if not arguments:
            return ast.Constant("".join(str(p.value) for p in node.values if isinstance(p, ast.Constant)))
        return ast.Call(ast.Attribute(ast.Constant(template), "format", ast.Load()), arguments, [])

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Name) and function.id in PARAMETERS:
            _by_place(node, PARAMETERS[function.id])
        elif isinstance(function, ast.Attribute) and function.attr in METHOD_PARAMETERS:
            _by_place(node, METHOD_PARAMETERS[function.attr])
        if ast.unparse(function) == "str.maketrans":
            node.func = _name("_l.maketrans")
            return node
        if ast.unparse(function) == "time.sleep":
            raise self.refuse(node, "time.sleep()", "it would hold up all requests: await proxywasm.sleep(…)")
        if isinstance(function, ast.Attribute) and function.attr in {"encode", "decode"} and (node.args or node.keywords):
            return ast.Call(_name(f"_l.{function.attr}"), [function.value, *node.args], node.keywords)
        if isinstance(function, ast.Attribute) and function.attr in {"to_bytes", "from_bytes"} and (node.keywords or len(node.args) < 2):
            return ast.Call(_name(f"_l.{function.attr}"), [function.value, *node.args], node.keywords)
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            return ast.Call(_name(f"_l.{function.attr}"), [function.value, *node.args], node.keywords)
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "re" and node.args:
            self.check_pattern(node.args[0])
        if isinstance(function, ast.Name):
            if function.id in {"eval", "exec", "open", "input", "breakpoint"}:
                raise self.refuse(node, f"{function.id}()", "a filter has no files, no terminal and no other source")
            if function.id in {"format", "issubclass", "zip"}:
                node.func = _name(f"_l.{function.id}")
            elif function.id == "isinstance":
                if self.enumerations:
                    node.func = _name("_l.is_instance")
                if len(node.args) == 2:
                    node.args[1] = _with_bool(node.args[1])
            elif function.id == "vars" and len(node.args) == 1:
                return ast.Attribute(node.args[0], "__dict__", ast.Load())
            elif function.id == "dict" and len(node.args) == 1 and not node.keywords:
                node.func = _name("_l.to_dict")
        return node

    def check_pattern(self, node: ast.expr) -> None:
        """Check a literal pattern. Raises: ScriptError, if it is wrong or uses what packed filters lack."""
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes):
            return
        wrong = [_wrong(node.value, flags) for flags in (re.RegexFlag(0), re.VERBOSE)]
        if all(wrong):
            raise ScriptError(f"{self.name}:{node.lineno}: the pattern {node.value!r} is wrong: {wrong[0]}")
        text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        if re.search(r"(?<!\\)(?:\\\\)*\(\?\(", re.sub(r"\[\^?\]?(?:\\.|[^\\\]])*\]", "", text)):
            raise self.refuse(node, "a condition in a pattern, (?(…)…)", "write the ways with |")

    def visit_Name(self, node: ast.Name) -> Any:
        node.id = EXCEPTIONS.get(node.id, node.id)
        return node

    # Slices with steps

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        index = node.slice
        if not isinstance(index, ast.Slice) or index.step is None:
            return node
        none = ast.Constant(None)
        parts = [index.lower or none, index.upper or none, index.step]
        if isinstance(node.ctx, ast.Load):
            return _call("_l.slice_of", node.value, *parts)
        raise self.refuse(node, "assigning to (or deleting) a slice with a step", "build a new list")

    def visit_Delete(self, node: ast.Delete) -> Any:
        return self.generic_visit(node)

    # Pattern matching

    def visit_Match(self, node: ast.Match) -> Any:
        subject, done = self.fresh(), self.fresh()
        out: list[ast.stmt] = [
            ast.Assign([ast.Name(subject, ast.Store())], self.visit(node.subject)),
            *self.parse(f"{done} = False"),
        ]
        for case in node.cases:
            tests, names = self.pattern(case.pattern, subject)
            body: list[ast.stmt] = [*self.parse(f"{done} = True")]
            for statement in case.body:
                new = self.visit(statement)
                body += new if isinstance(new, list) else [new]
            if case.guard is not None:
                body = [ast.If(self.visit(case.guard), body, [])]
            bound = self.parse("\n".join(f"{k} = {v}" for k, v in names))
            out.append(ast.If(_name(" and ".join([f"not {done}", *tests])), [*bound, *body], []))
        for statement in out:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.If) and hasattr(inner.test, "lineno"):
                    for x in ast.walk(inner.test):
                        if hasattr(x, "lineno") and x.lineno == 1:
                            x.lineno = node.lineno
        return out

    def pattern(self, p: ast.pattern, e: str) -> tuple[list[str], list[tuple[str, str]]]:
        """The conditions of a pattern, and the names that it binds: (name, expression)."""
        if isinstance(p, ast.MatchValue):
            return [f"{e} == {ast.unparse(p.value)}"], []
        if isinstance(p, ast.MatchSingleton):
            return [f"{e} is {p.value!r}"], []
        if isinstance(p, ast.MatchAs):
            tests, names = self.pattern(p.pattern, e) if p.pattern else ([], [])
            return tests, [*names, (p.name, e)] if p.name else names
        if isinstance(p, ast.MatchOr):
            ways = [self.pattern(q, e) for q in p.patterns]
            if any(names for _, names in ways):
                raise self.refuse(p, "a pattern with | that binds names", "write a case for each")
            return ["(" + " or ".join("(" + (" and ".join(t) or "True") + ")" for t, _ in ways) + ")"], []
        names = []
        if isinstance(p, ast.MatchSequence):
            star = next((i for i, q in enumerate(p.patterns) if isinstance(q, ast.MatchStar)), None)
            size = len(p.patterns)
            count = f"len({e}) == {size}" if star is None else f"len({e}) >= {size - 1}"
            tests = [f"isinstance({e}, (list, tuple, range))", count]
            for i, q in enumerate(p.patterns):
                if isinstance(q, ast.MatchStar):
                    if q.name:
                        names.append((q.name, f"list({e}[{i}:len({e}) - {size - 1 - i}])"))
                    continue
                more, bound = self.pattern(q, f"{e}[{i if star is None or i < star else i - size}]")
                tests += more
                names += bound
            return tests, names
        if isinstance(p, ast.MatchMapping):
            tests = [f"isinstance({e}, dict)"]
            for key, q in zip(p.keys, p.patterns, strict=True):
                text = ast.unparse(key)
                more, bound = self.pattern(q, f"{e}[{text}]")
                tests += [f"{text} in {e}", *more]
                names += bound
            if p.rest:
                keys = ", ".join(ast.unparse(k) for k in p.keys)
                names.append((p.rest, f"_l.without({e}, [{keys}])"))
            return tests, names
        if isinstance(p, ast.MatchClass):
            kind = ast.unparse(p.cls)
            tests = [f"isinstance({e}, {'(int, bool)' if kind == 'int' else kind})"]
            for i, q in enumerate(p.patterns):
                more, bound = self.pattern(q, f"_l.positional({e}, {kind}, {i})")
                tests += more
                names += bound
            for name, q in zip(p.kwd_attrs, p.kwd_patterns, strict=True):
                more, bound = self.pattern(q, f"{e}.{name}")
                tests += [f"hasattr({e}, {name!r})", *more]
                names += bound
            return tests, names
        raise self.refuse(p, "this pattern", "write it with if")

    # Constructs that cannot be rewritten

    def visit_TryStar(self, node: Any) -> Any:
        raise self.refuse(node, "except*", "catch the exceptions one by one")
