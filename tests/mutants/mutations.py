"""The mutants of a module: its text with one fault each.

The operators are those of mutmut, besides them the ones that an authorizer needs: a statement, an operand, a guard, a case or an
element of a tuple (most keys of caches are tuples) that is gone. Mutants are pieces of text put in place of others, so that a
mutant is named by what it changes: the lines before and after, with single spaces, in a function of a module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

MODULE = "(module)"
"""The function of a mutant that stands outside all functions."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names a mutant as long as the lines that it changes stay the same; `nth` tells apart the same change in one function."""

    module: str
    function: str
    was: str
    now: str
    nth: int = 1

    def __str__(self) -> str:
        """As two lines of a diff, with the place above them."""
        count = f" (number {self.nth} of its kind)" if self.nth > 1 else ""
        return f"{self.module} {self.function}{count}\n  - {self.was}\n  + {self.now}"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: `text` is the whole module with it, `first` and `last` are the lines that it changes."""

    key: Key
    text: str
    first: int
    last: int
    within_function: bool
    """Whether only the body of a function differs, so that its code can be exchanged in a process that imported it already."""


@dataclass(frozen=True, slots=True)
class _Place:
    function: str = MODULE
    within_function: bool = False
    first: int = 0
    """Where the text begins that it is a part of: Python runs strings that are written one after another as one."""


def mutants_of(path: Path, *, root: Path) -> list[Mutant]:
    """Return all mutants of a module in the order of its lines; those that are no Python are left out."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(root).as_posix()
    wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
    collector = _Collector(wrapper.module, text)
    wrapper.visit(collector)
    counts: Counter[tuple[str, str, str]] = Counter()
    found = []
    for start, end, replacement, place in sorted(collector.found, key=lambda item: item[:2]):
        mutated = text[:start] + replacement + text[end:]
        if mutated == text or not _compiles(mutated):
            continue
        is_whole_line = not replacement and text[end - 1] == "\n"
        was, now = _lines(text, start, end), "" if is_whole_line else _lines(mutated, start, start + len(replacement))
        if was == now:
            continue
        counts[place.function, was, now] += 1
        found.append(
            Mutant(
                Key(name, place.function, was, now, counts[place.function, was, now]),
                mutated,
                text.count("\n", 0, place.first) + 1,
                text.count("\n", 0, end) + 1,
                place.within_function,
            )
        )
    return found


class _Collector(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: cst.Module, text: str) -> None:
        super().__init__()
        self.found: list[tuple[int, int, str, _Place]] = []
        self._module = module
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scopes: list[str] = []
        self._bodies: list[cst.FunctionDef] = []
        self._inner: set[int] = set()
        self._targets: set[int] = set()
        self._texts: list[cst.ConcatenatedString] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Take the mutants of a node; false where nothing below is mutated."""
        if _is_left_alone(node):
            return False
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self._scopes.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            self._bodies.append(node)
            self._inner.update(id(statement) for statement in node.body.body)
        if isinstance(node, cst.ConcatenatedString):
            self._texts.append(node)
        if isinstance(node, cst.AssignTarget | cst.For | cst.CompFor):
            self._targets.add(id(node.target))
        if isinstance(node, cst.AnnAssign | cst.Assign) and not self._bodies and _is_alias(node):
            return False
        for replacement in self._replacements(node):
            self._add(node, self._module.code_for_node(replacement))
        self._removals(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Leave a function, a class or a text."""
        if self._texts and original_node is self._texts[-1]:
            self._texts.pop()
        if isinstance(original_node, cst.ClassDef | cst.FunctionDef):
            self._scopes.pop()
        if isinstance(original_node, cst.FunctionDef):
            self._bodies.pop()

    def _replacements(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        if isinstance(node, cst.Match | cst.IfExp) or (isinstance(node, cst.Assign | cst.AnnAssign) and _binds_name(node)):
            return
        if isinstance(node, cst.Call) and not self._bodies:
            # Without an argument, what builds a constant raises at the import.
            return
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for found in operator(node):
                    if not _shows_nothing(node, found):
                        yield found
                    if isinstance(node, cst.SimpleString):
                        # Capitals and small letters besides the XX around it show nothing more.
                        break

    def _removals(self, node: cst.CSTNode) -> None:
        match node:
            case cst.Expr() | cst.Raise() | cst.Del():
                self._add(node, "pass")
            case cst.SimpleStatementLine(body=[cst.Return() as leaving]) if id(node) not in self._inner or leaving.value is None:
                self._add(leaving, "pass")
            case cst.BooleanOperation(left=left, right=right):
                self._add(node, f"({self._module.code_for_node(left)})")
                self._add(node, f"({self._module.code_for_node(right)})")
            case cst.IfExp(body=body, orelse=orelse):
                self._add(node, f"({self._module.code_for_node(body)})")
                self._add(node, f"({self._module.code_for_node(orelse)})")
            case cst.If(test=test) if isinstance(test, cst.Name | cst.Attribute | cst.Call):
                self._add(test, f"not {self._module.code_for_node(test)}")
            case cst.Tuple(elements=elements) if len(elements) > 1 and id(node) not in self._targets:
                for index in range(len(elements)):
                    kept = [self._module.code_for_node(one.with_changes(comma=cst.MaybeSentinel.DEFAULT)) for one in elements]
                    del kept[index]
                    opening, closing = ("(", ")") if not node.lpar else ("", "")
                    # A position is without the parentheses around it.
                    self._add(node, f"{opening}{', '.join(kept)},{closing}")
            case cst.CompFor(ifs=ifs):
                for condition in ifs:
                    self._add(condition, "")
            case cst.MatchCase(guard=guard):
                first, last = self._span(node)
                start = self._starts[self._line(first)]
                self.found.append((start, self._starts[self._line(last - 1) + 1], "", self._place(start)))
                if guard is not None:
                    self._add(guard, "True")
            case _:
                pass

    def _add(self, node: cst.CSTNode, replacement: str) -> None:
        start, end = self._span(node)
        self.found.append((start, end, replacement, self._place(start)))

    def _place(self, start: int) -> _Place:
        within_function = bool(self._bodies) and start >= self._span(self._bodies[0].body.body[0])[0]
        first = self._span(self._texts[0])[0] if self._texts else start
        return _Place(".".join(self._scopes) or MODULE, within_function, first)

    def _line(self, offset: int) -> int:
        low = 0
        for index, start in enumerate(self._starts):
            if start > offset:
                break
            low = index
        return low

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        position = self.get_metadata(PositionProvider, node)
        assert isinstance(position, CodeRange)
        return (
            self._starts[position.start.line - 1] + position.start.column,
            self._starts[position.end.line - 1] + position.end.column,
        )


def _is_left_alone(node: cst.CSTNode) -> bool:
    """Tell what decides nothing by itself: imports, types, decorators, docstrings; and what cannot be mutated in a running test."""
    match node:
        case cst.Import() | cst.ImportFrom() | cst.Annotation() | cst.Decorator() | cst.Assert() | cst.TypeAlias():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString() | cst.Ellipsis()):
            return True
        case cst.If(test=cst.Name(value="TYPE_CHECKING")):
            return True
        case cst.Call(func=cst.Name(value="TypeVar" | "cast" | "NewType")):
            return True
        case _:
            return False


def _binds_name(node: cst.Assign | cst.AnnAssign) -> bool:
    """Tell whether a variable is bound: as None it would raise where it is used, and show nothing more."""
    target = node.target if isinstance(node, cst.AnnAssign) else node.targets[0].target
    return isinstance(target, cst.Name | cst.Tuple)


def _shows_nothing(node: cst.CSTNode, mutated: cst.CSTNode) -> bool:
    """Tell whether a mutated call raises wherever it runs, as `len(None)` or without an argument, or does the same."""
    if not isinstance(node, cst.Call) or not isinstance(mutated, cst.Call):
        return False
    if isinstance(node.func, cst.Name) and node.func.value in {"len", "isinstance", "issubclass", "getattr", "hasattr"}:
        return True
    gone = len(mutated.args) < len(node.args)
    if not gone and any(
        m.matches(before.value, m.Name("True") | m.Name("False")) and m.matches(after.value, m.Name("None"))
        for before, after in zip(node.args, mutated.args, strict=True)
    ):
        # None is as false as False; what is true becomes False in a mutant of its own.
        return True
    return gone and sum(arg.keyword is not None for arg in mutated.args) == sum(arg.keyword is not None for arg in node.args)


def _is_alias(node: cst.Assign | cst.AnnAssign) -> bool:
    """Tell whether an assignment of the module or of a class names a type, the log, or what the class holds."""
    if isinstance(node, cst.Assign):
        name = node.targets[0].target
        if isinstance(name, cst.Name) and name.value in {"_log", "__slots__", "__all__"}:
            return True
    return isinstance(node.value, cst.Subscript) or (
        isinstance(node.value, cst.BinaryOperation) and isinstance(node.value.operator, cst.BitOr)
    )


def _compiles(text: str) -> bool:
    try:
        compile(text, "<mutant>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _lines(text: str, start: int, end: int) -> str:
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", max(end - 1, start) if end > start and text[end - 1] == "\n" else end)
    return " ".join(text[first : last if last >= 0 else len(text)].split())


def in_lines(mutants: Iterable[Mutant], changed: Sequence[int]) -> list[Mutant]:
    """Return the mutants that change one of some lines."""
    lines = set(changed)
    return [mutant for mutant in mutants if not lines.isdisjoint(range(mutant.first, mutant.last + 1))]
