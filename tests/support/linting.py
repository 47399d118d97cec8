"""What makes a test one that cannot fail, or that waits for nothing it can see: found in the source of the tests, with `ast`.

A line that has to break a rule says so itself: `# why: ...` at its end.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

WAITING = "tests/support/waiting.py"
"""The one file that may look again and again."""
REASON = re.compile(r"#.*\bwhy: \S+ \S+ \S+")
RAISING = frozenset({"pytest.raises", "pytest.warns", "pytest.fail"})
LAST_OF_RAISING = frozenset(name.rpartition(".")[2] for name in RAISING)
SKIPPING = frozenset({"skip", "skipif", "xfail", "importorskip", "skipTest"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that breaks a rule, and what to do about it."""

    place: str
    line: int
    advice: str

    def __str__(self) -> str:
        """Write it as compilers do."""
        return f"{self.place}:{self.line}: {self.advice}"


@dataclass(frozen=True)
class Source:
    """One file: its tree, its comments, and what its names stand for; `module` is dotted."""

    module: str
    place: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text)

    @cached_property
    def parents(self) -> Mapping[ast.AST, ast.AST]:
        """The node around each node."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @cached_property
    def excused(self) -> frozenset[int]:
        """The lines that give a reason."""
        if not REASON.search(self.text):
            return frozenset()
        tokens = tokenize.generate_tokens(StringIO(self.text).readline)
        return frozenset(token.start[0] for token in tokens if token.type == tokenize.COMMENT and REASON.search(token.string))

    @cached_property
    def names(self) -> Mapping[str, tuple[str, str]]:
        """What a plain name of the module is: the module and the function that it comes from."""
        imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        return imported | {node.name: (self.module, node.name) for node in self.tree.body if isinstance(node, Function)}

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Everything in the tree."""
        return tuple(ast.walk(self.tree))

    def functions(self) -> Iterator[Function]:
        """Yield every function, whatever it stands in."""
        return (node for node in self.nodes if isinstance(node, Function))

    def tests(self) -> Iterator[Function]:
        """Yield the functions that pytest calls."""
        return (node for node in self.functions() if node.name.startswith("test_") and not isinstance(self.parents[node], Function))

    def around(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Yield each node around a node, with the child that leads to it."""
        while node in self.parents:
            yield self.parents[node], node
            node = self.parents[node]

    def functions_around(self, node: ast.AST) -> Iterator[Function]:
        """Yield the functions that a node stands in."""
        return (outer for outer, _ in self.around(node) if isinstance(outer, Function))

    def is_excused(self, node: ast.expr | ast.stmt) -> bool:
        """Tell whether one of the lines of a node gives a reason."""
        return not self.excused.isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1))


@dataclass(frozen=True)
class Suite:
    """All the sources, for rules that follow a helper to where it is written."""

    sources: tuple[Source, ...]
    asserting: set[ast.AST] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Find the functions that assert something, themselves or by those that they call."""
        calling: dict[Function, tuple[Source, list[ast.Call]]] = {}
        for source in self.sources:
            for node in source.nodes:
                if _asserts(node):
                    self.asserting.update(source.functions_around(node))
                elif isinstance(node, ast.Call):
                    for function in source.functions_around(node):
                        calling.setdefault(function, (source, []))[1].append(node)
        left = {function: calls for function, calls in calling.items() if function not in self.asserting}
        while more := [
            function for function, (source, calls) in left.items() if any(self.is_assertion(source, call) for call in calls)
        ]:
            self.asserting.update(more)
            for function in more:
                del left[function]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Suite:
        """Read sources by their places, as in `tests/support/x.py`."""
        return cls(tuple(Source(place.removesuffix(".py").replace("/", "."), place, text) for place, text in texts.items()))

    @classmethod
    def read(cls, root: Path) -> Suite:
        """Read all that stands in the folder `tests` of a project."""
        return cls.of({str(path.relative_to(root)): path.read_text("utf-8") for path in sorted((root / "tests").rglob("*.py"))})

    @cached_property
    def _functions(self) -> Mapping[tuple[str, str], Function]:
        return {
            (source.module, node.name): node for source in self.sources for node in source.tree.body if isinstance(node, Function)
        }

    @cached_property
    def _methods(self) -> Mapping[str, list[Function]]:
        found: dict[str, list[Function]] = {}
        for source in self.sources:
            for node in source.functions():
                if isinstance(source.parents[node], ast.ClassDef):
                    found.setdefault(node.name, []).append(node)
        return found

    def is_assertion(self, source: Source, node: ast.AST) -> bool:
        """Tell whether a node fails a test, itself or in the helper that it calls; of methods, all of that name have to."""
        if _asserts(node):
            return True
        match node:
            case ast.Call(func=ast.Name(id=name)):
                found = self._functions.get(source.names.get(name, ("", "")))
                return found is not None and found in self.asserting
            case ast.Call(func=ast.Attribute(attr=name)) if name in self._methods:
                return all(method in self.asserting for method in self._methods[name])
        return False


Rule = Callable[[Suite, Source], Iterator[Finding]]


def without_assertion(suite: Suite, source: Source) -> Iterator[Finding]:
    """Find tests that no answer of the product fails, and those that assert only if something else is so."""
    for test in source.tests():
        found = [node for node in ast.walk(test) if suite.is_assertion(source, node)]
        if source.is_excused(_head(test)):
            continue
        if not found:
            yield Finding(source.place, test.lineno, f"{test.name} asserts nothing: assert what must be seen")
        elif all(_is_conditional(source, test, node) for node in found):
            advice = "asserts only under a condition, or in a loop that may be empty: assert outside of it that it is entered"
            yield Finding(source.place, test.lineno, f"{test.name} {advice}")


def sleeps(_: Suite, source: Source) -> Iterator[Finding]:
    """Find waiting by the clock: a pause of a fixed length is too short on a busy machine, or too long on every other."""
    for node in _calls(source):
        if source.place == WAITING or _name(node).rpartition(".")[2] != "sleep" or source.is_excused(node):
            continue
        is_turn = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)] == [0]
        if not is_turn or any(isinstance(outer, ast.While | ast.For | ast.AsyncFor) for outer, _ in _within_function(source, node)):
            advice = f"a sleep: wait for an event, or by eventually, until or settled of {WAITING}, or say # why: ..."
            yield Finding(source.place, node.lineno, advice)


def skips(_: Suite, source: Source) -> Iterator[Finding]:
    """Find tests that may not run."""
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr in SKIPPING and not source.is_excused(node):
            yield Finding(source.place, node.lineno, f"{node.attr}: a test runs everywhere, or its line says # why: ...")


def alternatives(_: Suite, source: Source) -> Iterator[Finding]:
    """Find assertions that several answers pass."""
    for node in source.nodes:
        match node:
            case ast.Assert(test=test) if any(map(_is_choice, _claims(test))) and not source.is_excused(node):
                yield Finding(source.place, node.lineno, "several answers pass: assert the one that is right, or say # why: ...")
            case ast.Call(args=[ast.Tuple(elts=[_, _, *_]), *_]) if _name(node) == "pytest.raises" and not source.is_excused(node):
                yield Finding(source.place, node.lineno, "several exceptions pass: name the one that is right, or say # why: ...")


def without_effect(_: Suite, source: Source) -> Iterator[Finding]:
    """Find assertions that hold whatever the product does."""
    for node in source.nodes:
        if isinstance(node, ast.Assert) and not source.is_excused(node) and (cause := _always(source, node)):
            yield Finding(source.place, node.lineno, f"{cause}: assert something that can be otherwise, or say # why: ...")


def swallowed(_: Suite, source: Source) -> Iterator[Finding]:
    """Find a failed assertion that nobody hears of."""
    for node in source.nodes:
        match node:
            case ast.ExceptHandler(type=ast.expr() as caught):
                kinds = [caught]
            case ast.Call(args=[*kinds]) if _name(node).rpartition(".")[2] == "suppress":
                pass
            case _:
                continue
        for kind in kinds:
            if "AssertionError" in ast.unparse(kind) and not source.is_excused(kind):
                yield Finding(source.place, kind.lineno, "a failed assertion is caught: let it fail the test, or say # why: ...")


WRAPPING = frozenset({"enumerate", "sorted", "list", "tuple", "set", "reversed", "zip", "product"})
VIEWS = frozenset({"items", "values", "keys", "splitlines", "split"})
RULES: tuple[Rule, ...] = (without_assertion, sleeps, skips, alternatives, without_effect, swallowed)


def _asserts(node: ast.AST) -> bool:
    match node:
        case ast.Assert():
            return True
        case ast.Raise(exc=ast.expr() as raised):
            return "AssertionError" in ast.unparse(raised)
        case ast.Call():
            # The last part of the name first: to write a node again takes long.
            return isinstance(node.func, ast.Attribute) and node.func.attr in LAST_OF_RAISING and _name(node) in RAISING
    return False


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in source.nodes if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _head(function: Function) -> ast.stmt | ast.expr:
    """Return what stands for the line of `def`."""
    return ast.copy_location(ast.Pass(end_lineno=function.lineno), function)


def _within_function(source: Source, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for outer, child in source.around(node):
        if isinstance(outer, Function):
            return
        yield outer, child


def _is_conditional(source: Source, test: Function, node: ast.AST) -> bool:
    """Tell whether a test may pass by an assertion without reaching it."""
    for outer, child in source.around(node):
        if outer is test:
            return False
        match outer:
            case ast.If() if child is not outer.test and not (outer.orelse and _both_assert(outer)):
                return True
            case ast.For() | ast.AsyncFor() if child in outer.body and _may_be_empty(source, test, outer.iter, outer):
                return True
            case ast.While() if child in outer.body:
                return True
            case ast.Try() if child in outer.handlers:
                return True
    return False


def _both_assert(branch: ast.If) -> bool:
    return all(any(_asserts(node) for part in parts for node in ast.walk(part)) for parts in (branch.body, branch.orelse))


def _may_be_empty(source: Source, test: Function | None, items: ast.expr, within: ast.AST) -> bool:
    """Tell whether nothing shows that there are items: neither how they are written, nor another assertion that names them."""
    match items:
        case ast.Tuple(elts=found) | ast.List(elts=found) | ast.Set(elts=found):
            return all(isinstance(each, ast.Starred) and _may_be_empty(source, test, each.value, within) for each in found)
        case ast.Dict(keys=keys):
            return not keys
        case ast.Constant(value=str() | bytes() as text):
            return not text
        case ast.Call(func=ast.Name(id="range")):
            return any(isinstance(each, ast.Call) for each in items.args)
        case ast.Call(func=ast.Name(id=name), args=[*parts]) if name in WRAPPING:
            return all(_may_be_empty(source, test, part, within) for part in parts)
        case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in VIEWS:
            return _may_be_empty(source, test, inner, within)
        case ast.ListComp(generators=[first, *_]) | ast.GeneratorExp(generators=[first, *_]):
            return bool(first.ifs) or _may_be_empty(source, test, first.iter, within)
        case ast.Subscript(value=inner):
            items = inner
    match items:
        case ast.Attribute(attr=name) | ast.Name(id=name) if name[:1].isupper():
            return False
    return not (test and _is_drawn(test, items)) and not _is_shown(source, test or source.tree, ast.unparse(items), within)


def _is_drawn(test: Function, items: ast.expr) -> bool:
    """Tell whether hypothesis draws what is looped over: it also draws what is not empty."""
    parameters = {each.arg for each in (*test.args.args, *test.args.kwonlyargs)}
    is_given = any(ast.unparse(each).startswith("given(") for each in test.decorator_list)
    return is_given and any(isinstance(each, ast.Name) and each.id in parameters for each in ast.walk(items))


def _is_shown(source: Source, scope: ast.AST, written: str, within: ast.AST) -> bool:
    """Tell whether another assertion of the same test names the items, or they are written where they get their name."""
    for node in ast.walk(scope):
        match node:
            case ast.Assert() if node is not within and within not in {outer for outer, _ in source.around(node)}:
                if re.search(rf"(?<![\w.]){re.escape(written)}(?!\w)", ast.unparse(node.test)):
                    return True
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value) if name == written:
                if not isinstance(value, ast.Name) and not _may_be_empty(source, None, value, within):
                    return True
    return False


def _claims(test: ast.expr) -> Iterator[ast.expr]:
    """Yield the parts of an assertion that all have to hold, and what is said of each of many."""
    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            for value in values:
                yield from _claims(value)
        case ast.Call(func=ast.Name(id="all"), args=[ast.GeneratorExp(elt=each) | ast.ListComp(elt=each)]):
            yield from _claims(each)
        case _:
            yield test


def _is_choice(claim: ast.expr) -> bool:
    match claim:
        case ast.BoolOp(op=ast.Or()):
            return True
        case ast.Compare(ops=[ast.In()], comparators=[ast.Tuple(elts=found) | ast.List(elts=found) | ast.Set(elts=found)]):
            return len(found) > 1
    return False


def _always(source: Source, node: ast.Assert) -> str:
    """Say why an assertion holds always; "" if it does not."""
    match node.test:
        case ast.Constant() | ast.Tuple() | ast.JoinedStr() | ast.Lambda():
            return "a constant"
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() | ast.GtE() | ast.LtE()], comparators=[right]) if ast.unparse(
            left
        ) == ast.unparse(right) and not any(isinstance(each, ast.Call) for each in ast.walk(left)):
            return "compared with itself"
        case ast.Compare(left=ast.Call(func=ast.Name(id="len")), ops=[ast.GtE()], comparators=[ast.Constant(value=0)]):
            return "no length is below zero"
        case (
            ast.Call(func=ast.Name(id="all"), args=[ast.GeneratorExp() | ast.ListComp() as each])
            | ast.UnaryOp(
                op=ast.Not(), operand=ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp() | ast.ListComp() as each])
            )
        ):
            test = next((outer for outer, _ in source.around(node) if isinstance(outer, Function)), None)
            if _may_be_empty(source, test, each.generators[0].iter, node):
                return f"true of nothing at all if {ast.unparse(each.generators[0].iter)} is empty"
    return ""
