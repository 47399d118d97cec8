"""The operations of API descriptions: OpenAPI 3.0 and 3.1, with what decides who may call them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extauthz.errors import ConfigurationError, Problem
from extauthz.tools.openapi_references import MAX_STEPS, DocumentNode, References
from extauthz.tools.openapi_servers import ApiServer, servers_of

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MAX_NAMES = 200_000
"""Tags and names of security of all operations of a description: with aliases a short file has them by the billion."""
MAX_PARTS = 1_000_000
"""Parameters, servers and keys of all operations of a description."""
MAX_REQUIREMENTS = 200
"""Alternatives of the security of one operation, which are compared with one another."""
_TEXTS = {"$ref", "summary", "description"}


@dataclass(frozen=True, slots=True, eq=False)
class DescribedOperation:
    """One method of one path, as it is described.

    `path` is the template without the base of its servers. Each alternative of `security` names what it needs together: scopes, or
    the scheme where that has none. `is_open` where the description lets everybody in. `matrix` are parameters of the path that are
    written behind a ";".
    """

    method: str
    path: str
    servers: tuple[ApiServer, ...]
    operation_id: str | None = None
    tags: tuple[str, ...] = ()
    security: tuple[tuple[str, ...], ...] = ()
    is_open: bool = False
    extensions: Mapping[str, Any] | None = None
    matrix: frozenset[str] = frozenset()
    place: str = ""

    @property
    def label(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"


def read(files: Sequence[Path], prefix: str | None = None) -> list[DescribedOperation]:
    """Return the operations of all descriptions in their order; a `prefix` stands for the base paths of all servers.

    Raises ConfigurationError with everything that is wrong.
    """
    operations: list[DescribedOperation] = []
    problems: list[Problem] = []
    for file in files:
        try:
            operations += _Description(file, prefix).operations()
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return operations


class _Count:
    """Counts what operations are made of, each time that it stands somewhere: an error ends what aliases multiply."""

    def __init__(self, unit: str, what: str, limit: int) -> None:
        self._unit = unit
        self._what = what
        self._limit = limit
        self._number = 0

    @property
    def is_over(self) -> bool:
        return self._number > self._limit

    def items(self, node: DocumentNode) -> list[DocumentNode]:
        """Return the items of a list; raises ConfigurationError."""
        self.add(node, node)
        return node.items()

    def add(self, node: DocumentNode, place: DocumentNode) -> None:
        """Count the entries of a node; raises ConfigurationError at a place."""
        self.add_number(len(node.value) if isinstance(node.value, (list, dict)) else 0, place)

    def add_number(self, number: int, place: DocumentNode) -> None:
        """Count some more; raises ConfigurationError at a place."""
        self._number += number
        if self.is_over:
            raise place.error(
                f"with it the {self._what} of its operations come to more than {self._limit:,} {self._unit}: split the description"
            )


class _Description:
    def __init__(self, file: Path, prefix: str | None) -> None:
        self._references = References(file)
        self._prefix = prefix
        self._names = _Count("names", "tags and names of security", MAX_NAMES)
        self._parts = _Count("entries", "parameters, servers and keys", MAX_PARTS)
        self._root = self._references.root()
        # By the id of the list: the references keep all lists.
        self._servers_of: dict[int, tuple[ApiServer, ...]] = {}
        _check_version(self._root)

    def operations(self) -> list[DescribedOperation]:
        problems: list[Problem] = []
        found: list[DescribedOperation] = []
        paths = self._references.follow(self._root.get("paths"))
        for path in paths.mapping():
            if path.startswith("x-"):
                continue
            item = paths.get(path)
            try:
                if not path.startswith("/"):
                    raise item.error("a path begins with '/': write it so")
                found += self._of_path(path, item)
            except ConfigurationError as error:
                problems += error.problems
            if self._names.is_over or self._parts.is_over:
                break
        if problems:
            raise ConfigurationError(problems)
        return found

    def _of_path(self, path: str, item: DocumentNode) -> Iterator[DescribedOperation]:
        layers = self._layers(item)
        for layer in layers:
            self._parts.add(layer, layer)
            for key in layer.mapping():
                if key not in METHODS and key.lower() in METHODS:
                    raise layer.get(key).error("methods are written in lower case")
        for method in METHODS:
            written = [layer.get(method) for layer in layers if method in layer.mapping()]
            if len(written) > 1:
                raise written[0].error("stands beside a $ref that has it too: remove one of the two")
            if written:
                yield self._operation(method, path, layers, written[0])

    def _layers(self, item: DocumentNode) -> list[DocumentNode]:
        """Return a path item and those that its `$ref` leads to, what stands beside it first."""
        layers = [item]
        while isinstance(layers[-1].value, dict) and "$ref" in layers[-1].value:
            following = self._references.step(layers[-1])
            if len(layers) > MAX_STEPS or any((layer.file, layer.path) == (following.file, following.path) for layer in layers):
                raise item.error(f"its $ref leads in a circle: {layers[-1].value['$ref']}")
            layers.append(following)
        return layers

    def _operation(self, method: str, path: str, layers: list[DocumentNode], written: DocumentNode) -> DescribedOperation:
        operation = self._references.follow(written)
        if operation is not written and (beside := set(written.mapping()) - _TEXTS):
            raise written.error(f"{min(beside)} stands beside a $ref, and readers disagree about what counts: write it there")
        if not isinstance(operation.value, dict):
            raise operation.error("is no operation: write a mapping")
        for layer in (*layers, operation):
            self._parts.add(layer, operation)
        name = operation.get("operationId").value
        security = operation.get("security") if "security" in operation.value else self._root.get("security")
        alternatives = self._alternatives(security)
        extensions = {key: value for layer in (*layers[::-1], operation) for key, value in layer.mapping().items()}
        return DescribedOperation(
            method.upper(),
            path,
            self._servers(operation, layers),
            name if isinstance(name, str) and name else None,
            tuple(item.text() for item in self._names.items(operation.get("tags"))),
            tuple(filter(None, alternatives)),
            not all(alternatives) or not alternatives,
            {key: value for key, value in extensions.items() if key.startswith("x-")},
            self._matrix([*layers[::-1], operation]),
            f"{operation.file}: {written.path}",
        )

    def _alternatives(self, security: DocumentNode) -> list[tuple[str, ...]]:
        if isinstance(security.value, list) and len(security.value) > MAX_REQUIREMENTS:
            raise security.error(f"has more than {MAX_REQUIREMENTS} alternatives: write fewer")
        return [self._needs(item) for item in self._names.items(security)]

    def _needs(self, item: DocumentNode) -> tuple[str, ...]:
        """Return what one alternative of `security` needs together, nothing for an empty one."""
        needs: list[str] = []
        if not isinstance(item.value, dict):
            raise item.error("is no mapping of a security scheme to its scopes")
        self._names.add(item, item)
        for scheme in item.value:
            scopes = [scope.text() for scope in self._names.items(item.get(scheme))]
            needs += scopes or [scheme]
        return tuple(dict.fromkeys(needs))

    def _servers(self, operation: DocumentNode, layers: list[DocumentNode]) -> tuple[ApiServer, ...]:
        if self._prefix is not None:
            return (ApiServer("", self._prefix),)
        for node in (operation, *layers, self._root):
            if "servers" in node.mapping():
                servers = node.get("servers")
                key = id(servers.value)
                if key not in self._servers_of:
                    self._servers_of[key] = servers_of(servers)
                self._parts.add_number(len(self._servers_of[key]), servers)
                return self._servers_of[key]
        return (ApiServer("", ""),)

    def _matrix(self, nodes: list[DocumentNode]) -> frozenset[str]:
        """Return the parameters of the path in the style "matrix"; what stands later counts."""
        styles: dict[str, Any] = {}
        for node in nodes:
            for item in self._parts.items(node.get("parameters")):
                parameter = self._references.follow(item)
                if parameter.get("in").value == "path":
                    styles[parameter.get("name").text()] = parameter.get("style").value
        return frozenset(name for name, style in styles.items() if style == "matrix")


def _check_version(root: DocumentNode) -> None:
    version = root.get("openapi").value
    if root.get("swagger").value is not None:
        raise root.error("is Swagger 2.0: convert it to OpenAPI 3, for instance with swagger2openapi, and import that")
    if not isinstance(root.value, dict) or version is None:
        raise root.error("is no API description: one of OpenAPI begins with 'openapi: 3.0.3' or 'openapi: 3.1.0'")
    if not root.get("openapi").text().startswith(("3.0", "3.1")):
        raise root.error(f"is OpenAPI {version!s:.20}: versions 3.0 and 3.1 are read")
