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


class _Description:
    def __init__(self, file: Path, prefix: str | None) -> None:
        self._references = References(file)
        self._prefix = prefix
        self._root = self._references.root()
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
        if problems:
            raise ConfigurationError(problems)
        return found

    def _of_path(self, path: str, item: DocumentNode) -> Iterator[DescribedOperation]:
        layers = self._layers(item)
        for layer in layers:
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
        name = operation.get("operationId").value
        security = operation.get("security") if "security" in operation.value else self._root.get("security")
        alternatives = [_needs(item) for item in security.items()]
        extensions = {key: value for layer in (*layers[::-1], operation) for key, value in layer.mapping().items()}
        return DescribedOperation(
            method.upper(),
            path,
            self._servers(operation, layers),
            name if isinstance(name, str) and name else None,
            tuple(str(item.value) for item in operation.get("tags").items()),
            tuple(filter(None, alternatives)),
            not all(alternatives) or not alternatives,
            {key: value for key, value in extensions.items() if key.startswith("x-")},
            self._matrix([*layers[::-1], operation]),
            f"{operation.file}: {written.path}",
        )

    def _servers(self, operation: DocumentNode, layers: list[DocumentNode]) -> tuple[ApiServer, ...]:
        if self._prefix is not None:
            return (ApiServer("", self._prefix),)
        for node in (operation, *layers, self._root):
            if "servers" in node.mapping():
                return servers_of(node.get("servers"))
        return (ApiServer("", ""),)

    def _matrix(self, nodes: list[DocumentNode]) -> frozenset[str]:
        """Return the parameters of the path in the style "matrix"; what stands later counts."""
        styles: dict[str, Any] = {}
        for node in nodes:
            for item in node.get("parameters").items():
                parameter = self._references.follow(item)
                if parameter.get("in").value == "path":
                    styles[str(parameter.get("name").value)] = parameter.get("style").value
        return frozenset(name for name, style in styles.items() if style == "matrix")


def _check_version(root: DocumentNode) -> None:
    version = root.get("openapi").value
    if root.get("swagger").value is not None:
        raise root.error("is Swagger 2.0: convert it to OpenAPI 3, for instance with swagger2openapi, and import that")
    if not isinstance(root.value, dict) or version is None:
        raise root.error("is no API description: one of OpenAPI begins with 'openapi: 3.0.3' or 'openapi: 3.1.0'")
    if not str(version).startswith(("3.0", "3.1")):
        raise root.error(f"is OpenAPI {version!s:.20}: versions 3.0 and 3.1 are read")


def _needs(item: DocumentNode) -> tuple[str, ...]:
    """Return what one alternative of `security` needs together, nothing for an empty one."""
    needs: list[str] = []
    if not isinstance(item.value, dict):
        raise item.error("is no mapping of a security scheme to its scopes")
    for scheme in item.value:
        scopes = [str(scope.value) for scope in item.get(scheme).items()]
        needs += scopes or [str(scheme)]
    return tuple(dict.fromkeys(needs))
