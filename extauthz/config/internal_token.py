"""The section internal_token, and what it must not have in common with other sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from extauthz.addresses import Address
from extauthz.config import document, listeners
from extauthz.config.document import Document, items, mapping
from extauthz.config.files import Files
from extauthz.config.values import NAME, NAME_RULE, ListenAddress, PositiveDuration, Secret, Section, text
from extauthz.errors import ConfigurationError, Problem

MIN_LIFETIME, MAX_LIFETIME = 10.0, 300.0

Audience = Annotated[str, text(r"[!-~]{1,256}", "write 1 to 256 printable characters without a space, like https://api.acme.com")]


class KeySetting(Secret):
    """A private key that signs internal tokens."""

    id: Annotated[str, text(NAME, NAME_RULE, shown=False)] = Field(examples=["id: k1"])


class InternalTokenSection(Section):
    """A signed token for the upstream that tells what the identity headers tell."""

    enabled: bool = True
    issuer: Audience = Field(examples=["issuer: https://extauthz.acme.internal"])
    audience: Audience = Field(examples=["audience: https://api.acme.internal"])
    lifetime: PositiveDuration = MAX_LIFETIME
    # What `repr` leaves out is in no problem either: here a key may stand that belongs elsewhere.
    keys: list[KeySetting] = Field(min_length=1, repr=False, examples=["keys: [{id: k1, file: ../data/internal-k1.pem}]"])
    jwks: ListenAddress | None = None

    @field_validator("lifetime")
    @classmethod
    def _bounded_lifetime(cls, seconds: float) -> float:
        if not MIN_LIFETIME <= seconds <= MAX_LIFETIME:
            raise ValueError(f"{seconds:g} seconds: write 10s to 5m")
        return seconds

    @field_validator("jwks")
    @classmethod
    def _tcp(cls, jwks: Address | None) -> Address | None:
        if jwks is not None and jwks.path:
            raise ValueError("upstreams fetch keys over HTTP: write an address and a port, like 0.0.0.0:9092")
        return jwks


def private_keys(file: Path, section: InternalTokenSection, environment: Mapping[str, str], files: Files) -> dict[str, bytes]:
    """Read the private keys by their ids, the one that signs first; raises ConfigurationError with every one that is not there."""
    source = document.read(file, files)
    keys: dict[str, bytes] = {}
    problems = []
    for index, setting in enumerate(section.keys):
        try:
            keys[setting.id] = setting.read_secret(file.parent, environment, files)
        except ValueError as error:
            missing = setting.file is not None and not (file.parent / setting.file).exists()
            hint = f"; 'extauthz internal-token new-key --file {file.parent / str(setting.file)}' makes one" if missing else ""
            problems.append(source.problem(("internal_token", "keys", index), f"{error}{hint}"))
    if problems:
        raise ConfigurationError(problems)
    return keys


def problems(source: Document, issuers: Iterable[str]) -> Iterator[Problem]:
    """Find key ids that are given twice, an issuer that is also one of OAuth tokens, and an address that others listen on."""
    section = mapping(source.data.get("internal_token"))
    seen: set[str] = set()
    for index, setting in enumerate(items(section.get("keys"))):
        key_id = str(mapping(setting).get("id", ""))
        if key_id and key_id in seen:
            message = "another key above has the same id: give each its own"
            yield source.problem(("internal_token", "keys", index, "id"), message)
        seen.add(key_id)
    if section.get("issuer") in set(issuers):
        message = "is also an issuer of OAuth tokens, and one could be taken for the other: write a name of this sidecar's own"
        yield source.problem(("internal_token", "issuer"), message)
    if listener := listeners.taken(source, listeners.JWKS, section.get("jwks")):
        yield source.problem(listeners.JWKS, f"{listener} is listened on by the sidecar itself: write another port")
