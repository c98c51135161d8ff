"""The rules of the source tree, as a checker: who may import whom, and what belongs in one place only.

It reads the source and runs none of it. Every import counts, also one inside a function or under `TYPE_CHECKING`: a
type that is named is a thing that is known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_LINES = 600


@dataclass(frozen=True)
class Rules:
    """What a tree must keep to. Modules are named without the package, such as `hub.sessions`.

    `layers` gives each sub-package (or top module) its height. An import may go down. Between different sub-packages of
    one layer it needs an entry in `sideways`: who -> what may be imported. `pure` names modules or sub-packages that
    may import none of `outside` (clocks, randomness, sockets, event loops), and of ours only what is pure too or one of
    the `exceptions`: so it holds for what they import indirectly. `reserved` says for a module from elsewhere which of
    ours may import it.
    """

    layers: Mapping[str, int]
    sideways: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pure: frozenset[str] = frozenset()
    outside: frozenset[str] = frozenset()
    exceptions: frozenset[str] = frozenset()
    reserved: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Import:
    """One imported module: `target` is a full dotted name, `line` where it stands."""

    target: str
    line: int


def imports(tree: ast.AST, module: str, is_package: bool, known: frozenset[str]) -> Iterator[Import]:
    """All that a module imports. Of our own, `from a import b` is `a.b` where that is a module, else `a`."""
    package = module.partition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield Import(base if base.partition(".")[0] == package and name not in known else name, node.lineno)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id != package:
            # `msgspec.json` is reached through the package, not by an import of its own.
            yield Import(f"{node.value.id}.{node.attr}", node.lineno)


def _within(name: str, groups: frozenset[str]) -> bool:
    return any(name == group or name.startswith(group + ".") for group in groups)


def check(source: Path, package: str, rules: Rules) -> list[str]:
    """Read the tree `source/package` and say what breaks the rules, one line each; an empty list is a clean tree."""
    root = source / package
    files = {".".join(p.relative_to(source).with_suffix("").parts): p for p in sorted(root.rglob("*.py"))}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    known = frozenset(modules)
    problems: list[str] = []
    graph: dict[str, set[str]] = {}

    for module, path in modules.items():
        text = path.read_text(encoding="utf-8")
        is_package = path.name == "__init__.py"
        short = module.removeprefix(package).removeprefix(".")
        if len(text.splitlines()) > MAX_LINES:
            problems.append(f"{module} has more than {MAX_LINES} lines")
        tree = ast.parse(text)
        if is_package and short and len(tree.body) > (ast.get_docstring(tree) is not None):
            problems.append(f"{module}/__init__.py has more than a docstring")
        group = short.partition(".")[0]
        if short and group not in rules.layers:
            problems.append(f"{module} belongs to no layer")
            continue
        own = graph.setdefault(module, set())
        for found in imports(tree, module, is_package, known):
            if found.target == package or found.target.startswith(package + "."):
                if found.target not in known:
                    problems.append(f"{module}:{found.line} imports {found.target}, which does not exist")
                    continue
                own.add(found.target)
                target = found.target.removeprefix(package).removeprefix(".")
                problem = _direction(short, target, rules) or _impure(short, target, rules)
            else:
                problem = _foreign(short, found.target, rules)
            if problem:
                problems.append(f"{module}:{found.line} {problem}")
    problems.extend(f"a cycle: {' -> '.join(cycle)}" for cycle in _cycles(graph))
    return problems


def _direction(importer: str, target: str, rules: Rules) -> str | None:
    """Say what is wrong with an import inside the package. The package itself is the roof: sees all, seen by none."""
    if not importer:
        return None
    if not target:
        return "imports the package itself, which is above it"
    own, other = importer.partition(".")[0], target.partition(".")[0]
    if own == other:
        return None
    if other not in rules.layers:
        return f"imports {target}, which belongs to no layer"
    if rules.layers[other] > rules.layers[own]:
        return f"imports {target}, which is above it"
    if rules.layers[other] == rules.layers[own] and not _within(target, rules.sideways.get(own, frozenset())):
        return f"imports {target}, which is beside it"
    return None


def _impure(importer: str, target: str, rules: Rules) -> str | None:
    if _within(importer, rules.pure) and not _within(target, rules.pure | rules.exceptions):
        return f"imports {target}, which is not pure"
    return None


def _foreign(importer: str, target: str, rules: Rules) -> str | None:
    if _within(target, rules.outside) and _within(importer, rules.pure):
        return f"imports {target}, and is to be pure"
    for name, allowed in rules.reserved.items():
        if _within(target, frozenset({name})) and not _within(importer, allowed):
            return f"imports {target}, which belongs into {', '.join(sorted(allowed)) or 'no module'}"
    return None


def _cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The cycles among modules, each once, as a path that ends where it began."""
    cycles: list[list[str]] = []
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        if module in path:
            cycles.append([*path[path.index(module) :], module])
            return
        if module in done:
            return
        path.append(module)
        for target in sorted(graph.get(module, ())):
            visit(target)
        path.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)
    return cycles
