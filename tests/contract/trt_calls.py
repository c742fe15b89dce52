"""Finds what the backend's source asks of TensorRT: every attribute and call on its objects, without running any of it.

Types follow from constructors (`trt.Builder(...)`), from what a call is documented to return, and through assignments.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Api = Mapping[str, Mapping[str, Sequence[str]]]  # class -> attribute -> signatures
RETURNED = {"nvonnxparser::IParserError": "ParserError"}  # printed before pybind11 knows its Python name
NAMED = {"context": "IExecutionContext"}  # of parameters and fields, whose types the source cannot state


@dataclass(frozen=True, slots=True)
class Use:
    """One attribute of a TensorRT class; with `arguments`, a call of it."""

    where: str
    cls: str
    attribute: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()


def uses(path: Path, api: Api) -> list[Use]:
    """All uses in one module, in the order of its lines."""
    walker = _Walker(path, api)
    tree = ast.parse(path.read_text())
    for _ in range(2):  # once to learn the types of what is assigned to `self`, once to look
        walker.found.clear()
        walker.visit(tree)
    return walker.found


class _Walker(ast.NodeVisitor):
    def __init__(self, path: Path, api: Api) -> None:
        self._path, self._api = path, api
        self._names: dict[str, str] = {}
        self._fields: dict[str, str] = {}
        self.found: list[Use] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = dict(self._names)
        self._names = {a.arg: NAMED[a.arg] for a in (*node.args.args, *node.args.kwonlyargs) if a.arg in NAMED}
        self.generic_visit(node)
        self._names = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        kind = self._type(node.value)
        for target in node.targets:
            if kind and isinstance(target, ast.Name):
                self._names[target.id] = kind
            elif kind and isinstance(target, ast.Attribute):
                self._fields[target.attr] = kind

    def visit_Call(self, node: ast.Call) -> None:
        keywords = tuple(k.arg or "**" for k in node.keywords)
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        count = None if starred else len(node.args)
        if name := _of_module(node.func):
            self._note(node, name, "__init__", count, keywords)
        elif isinstance(node.func, ast.Attribute) and (kind := self._type(node.func.value)):
            self._note(node, kind, node.func.attr, count, keywords)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for child in (*node.args, *(k.value for k in node.keywords)):
            self.visit(child)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        kind = _of_module(node.value) or self._type(node.value)
        if kind:
            self._note(node, kind, node.attr)
        self.generic_visit(node)

    def _note(
        self, node: ast.expr, cls: str, attribute: str, arguments: int | None = None, keywords: tuple[str, ...] = ()
    ) -> None:
        self.found.append(Use(f"{self._path.name}:{node.lineno}", cls, attribute, arguments, keywords))

    def _type(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self._fields.get(node.attr) or NAMED.get(node.attr, "")
        if isinstance(node, ast.Call):
            if name := _of_module(node.func):
                return name
            if isinstance(node.func, ast.Attribute) and (kind := self._type(node.func.value)):
                return self._returned(kind, node.func.attr)
        return ""

    def _returned(self, cls: str, method: str) -> str:
        for signature in self._api.get(cls, {}).get(method, ()):
            kind = signature.rpartition("-> ")[2].strip()
            if RETURNED.get(kind, kind) in self._api:
                return RETURNED.get(kind, kind)
        return ""


def _of_module(node: ast.expr) -> str:
    """`Name` of `trt.Name`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt":
        return node.attr
    return ""


def wrong(use: Use, api: Api) -> str:
    """Why an interface has no such thing, or "" where it has."""
    if use.cls not in api:
        return f"{use.where}: no class {use.cls}"
    if use.attribute not in api[use.cls]:
        return f"{use.where}: {use.cls} has no {use.attribute}"
    signatures = api[use.cls][use.attribute]
    if use.arguments is None or not signatures:
        return ""
    if any(_accepts(signature, use.arguments, use.keywords) for signature in signatures):
        return ""
    return f"{use.where}: {use.arguments} arguments and {use.keywords} do not fit {' or '.join(signatures)}"


def _accepts(signature: str, count: int, keywords: tuple[str, ...]) -> bool:
    parameters = dict(_parameters(signature))
    names = list(parameters)
    if count > len(names) or not set(keywords) <= set(names[count:]):
        return False
    return all(parameters[name] or name in keywords for name in names[count:])


def _parameters(signature: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it has a default) of every parameter but `self`."""
    inner = re.sub(r"<[^<>]*>", "x", signature).partition("(")[2].rpartition(") ->")[0]
    depth, start = 0, 0
    for i, c in enumerate(inner + ","):
        depth += (c in "[(") - (c in "])")
        if c == "," and depth == 0:
            part = inner[start:i].strip()
            start = i + 1
            if part and not part.startswith("self"):
                yield part.partition(":")[0].strip(), "=" in part
