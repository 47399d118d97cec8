"""The mapping file of `extauthz routes import openapi`: which scope an operation of an API description needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from extauthz.config import document
from extauthz.config.document import Document, KeyPath
from extauthz.config.files import Files
from extauthz.config.messages import problems_of, unknown_scope
from extauthz.config.scope_names import Scope
from extauthz.config.values import NonEmpty, Section, Yes
from extauthz.config.wording import bounded_hints
from extauthz.errors import ConfigurationError, Problem

CONDITIONS = ("security", "tag", "extension", "operationId", "path", "method")
OUTCOMES = ("scope", "all_of", "any_of", "public", "deny")


class Rule(Section):
    """What an operation must be like, each key that is there, and what it needs then.

    `*` in a value is any run of characters; in a path it ends at a slash, and `**` does not.
    """

    security: NonEmpty | None = Field(default=None, examples=['security: "read:items"'])
    tag: NonEmpty | None = None
    extension: str | None = Field(default=None, pattern="^x-", examples=["extension: x-scope"])
    value: bool | int | str | None = None
    operationId: NonEmpty | None = None  # noqa: N815 - its name in OpenAPI
    path: NonEmpty | None = Field(default=None, examples=['path: "/admin/**"'])
    method: Literal["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"] | None = None
    scope: Scope | None = None
    all_of: list[Scope] | None = Field(default=None, min_length=1)
    any_of: list[Scope] | None = Field(default=None, min_length=1)
    public: Yes | None = None
    deny: Yes | None = None
    anonymous: Yes | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Rule:
        outcomes = [name for name in OUTCOMES if getattr(self, name) is not None]
        if all(getattr(self, name) is None for name in CONDITIONS):
            raise ValueError(f"applies to nothing: write one of {', '.join(CONDITIONS)}")
        if len(outcomes) > 1 or (not outcomes and self.extension is None):
            raise ValueError(f"write exactly one of {', '.join(OUTCOMES)}; here is {' and '.join(outcomes) or 'none of them'}")
        if self.value is not None and self.extension is None:
            raise ValueError("value is that of an extension: write extension too, or leave value out")
        if self.security is not None and not outcomes:
            raise ValueError("either security or the extension says which scopes are needed: leave one out, or write a scope")
        if self.security is not None and self.public:
            raise ValueError("what demands security is not public: leave security or public out")
        if self.anonymous and (self.public or self.deny):
            raise ValueError(f"{outcomes[0]} needs no token: leave anonymous out")
        return self

    @property
    def names_scopes(self) -> bool:
        """Whether the value of the extension says which scopes are needed."""
        return all(getattr(self, name) is None for name in OUTCOMES)

    @property
    def scopes(self) -> list[str]:
        """The scopes that the rule asks for."""
        return [self.scope] if self.scope else list(self.all_of or self.any_of or ())


class Accepted(Section):
    """A finding of `routes coverage` that is meant: an operation or a route by its name, and why."""

    what: NonEmpty
    why: NonEmpty = Field(examples=['why: "the probe of the load balancer"'])


class OpenapiMap(Section):
    """The mapping file: rules in order, and how paths are written that no pattern says."""

    rules: list[Rule] = Field(default_factory=list, examples=["rules: [{tag: Search, scope: SEARCH}]"])
    mixed_segments: Literal["deny", "parameter"] = "deny"
    wildcards: Literal["segment", "rest"] = "segment"
    accepted: list[Accepted] = Field(default_factory=list)


@bounded_hints()
def read(file: Path, vocabulary: Sequence[str]) -> OpenapiMap:
    """Read a mapping file; without a vocabulary every scope is one. Raises ConfigurationError with all that is wrong."""
    source = document.read(file, Files())
    if not isinstance(source.data, dict):
        example = str(OpenapiMap.model_fields["rules"].examples[0])  # type: ignore[index]
        raise ConfigurationError(source.problems or [source.problem((), f"write a mapping, like {example}")])
    problems = list(source.problems)
    try:
        result = OpenapiMap.model_validate(source.data, context=tuple(vocabulary))
    except ValidationError as error:
        raise ConfigurationError(problems + problems_of(error, source, OpenapiMap)) from error
    if vocabulary:
        problems += _unknown_scopes(result, source, vocabulary)
    if problems:
        raise ConfigurationError(problems)
    return result


def _unknown_scopes(result: OpenapiMap, source: Document, vocabulary: Sequence[str]) -> Iterator[Problem]:
    for index, rule in enumerate(result.rules):
        places: list[tuple[KeyPath, Any]] = [(("scope",), rule.scope)]
        places += [((key, place), name) for key in ("all_of", "any_of") for place, name in enumerate(getattr(rule, key) or ())]
        for path, name in places:
            if name is not None and name not in vocabulary:
                yield source.problem(("rules", index, *path), unknown_scope(name, vocabulary))
