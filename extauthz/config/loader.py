"""From the path of extauthz.yaml to everything that can be built without touching the world."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from extauthz.config import document, routes
from extauthz.config.document import ConfigurationError, Document, Mistake
from extauthz.config.problems import mistakes_of, nearest
from extauthz.config.settings import OAuthSection, Settings, TokensSection
from extauthz.config.values import scope
from extauthz.core.act_as import ACT_AS_HEADERS, ActAs, compile_patterns
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION, Kind
from extauthz.core.identity import OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.policy import Policy
from extauthz.core.providers import PROVIDERS, ProviderRules

MIN_PEPPER_BYTES = 32
_LOOPBACK_WARNING = "can be reached by other machines, which can then try tokens: listen on loopback or a unix socket"
_RULE_WARNING = "is not the default: decoder_header_mutation_rules of your Envoy must allow these names, else it answers 500"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A valid configuration; `file` is where it stands, `warnings` are worth a look but do not stop anything."""

    file: Path
    settings: Settings
    policy: Policy
    providers: tuple[ProviderRules, ...]
    warnings: tuple[Mistake, ...]

    @property
    def store_path(self) -> Path | None:
        """The SQLite file of the token store, or None when issued tokens are off."""
        tokens = self.settings.tokens
        return self.file.parent / tokens.store.removeprefix("sqlite:///") if tokens and tokens.enabled else None

    def pepper_file(self, index: int = 0) -> Path | None:
        """Where the pepper of this index is kept, or None when it is in the environment."""
        name = self.settings.tokens.peppers[index].file if self.settings.tokens else None
        return None if name is None else self.file.parent / name

    def peppers(self, environment: Mapping[str, str]) -> dict[str, bytes]:
        """Read the peppers, the newest first; raises ConfigurationError."""
        return _peppers(self.file, self.settings.tokens, environment)

    def section_digest(self, kind: Kind, peppers: Mapping[str, bytes]) -> bytes:
        """Hash what a verifier of this kind is built from, resolved secrets included."""
        section: OAuthSection | TokensSection | None = self.settings.oauth if kind is Kind.OAUTH else self.settings.tokens
        hasher = hashlib.sha256(section.model_dump_json().encode() if section else b"")
        hasher.update("\n".join(self.settings.scopes).encode())
        for name, pepper in peppers.items():
            hasher.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(pepper).digest())
        return hasher.digest()


def load(file: Path) -> Configuration:
    """Read extauthz.yaml and its route files; raises ConfigurationError with every mistake in all of them.

    What concerns several sections is read from the plain data, so that a mistake in one section hides none in another.
    """
    source = document.read(file)
    mistakes = list(source.mistakes)
    settings: Settings | None = None
    if not isinstance(source.data, dict):
        raise ConfigurationError(mistakes or [source.mistake((), "the file is empty: start with version: 1")])
    try:
        settings = Settings.model_validate(source.data)
    except ValidationError as error:
        mistakes += mistakes_of(error, source, Settings)
    vocabulary = _scopes(source, "scopes")
    mistakes += [*_misused_scopes(source, vocabulary), *_misused_headers(source)]
    placed: list[routes.Placed] = []
    for index, name in enumerate(_strings(source, "routes")):
        if not (file.parent / name).is_file():
            mistakes.append(source.mistake(("routes", index), f"no such file: {file.parent / name}"))
            continue
        found, wrong = routes.read(file.parent / name, vocabulary)
        placed += found
        mistakes += wrong
    table, hosts, wrong, warnings = routes.compile_tables(placed)
    mistakes += wrong
    if mistakes or settings is None:
        raise ConfigurationError(mistakes)
    policy = Policy(
        routes=table,
        hosts=hosts,
        kinds=_kinds(settings),
        act_as=_act_as(settings),
        identity=_identity(settings),
        max_token_size=settings.server.max_token_size,
    )
    return Configuration(file, settings, policy, _providers(settings), (*_risks(settings, source), *warnings))


def _kinds(settings: Settings) -> frozenset[Kind]:
    sections = {Kind.OAUTH: settings.oauth, Kind.ISSUED: settings.tokens}
    return frozenset(kind for kind, section in sections.items() if section is not None and section.enabled)


def _act_as_headers(settings: Settings) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*ACT_AS_HEADERS, *settings.act_as.headers)))


def _act_as(settings: Settings) -> ActAs:
    return ActAs(_act_as_headers(settings), compile_patterns(settings.act_as.allow), compile_patterns(settings.act_as.deny))


def _identity(settings: Settings) -> IdentityHeaders:
    return IdentityHeaders(settings.identity.prefix, frozenset(settings.identity.keep), _act_as_headers(settings))


def _providers(settings: Settings) -> tuple[ProviderRules, ...]:
    section = settings.oauth
    if section is None or not section.enabled:
        return ()
    provider = PROVIDERS[section.provider]
    open_to_all = section.domains is None or "*" in section.domains
    return (
        ProviderRules(
            name=section.name or section.provider,
            provider=provider,
            issuer=section.issuer,
            client_ids=frozenset(section.client_ids),
            audience=frozenset(section.audience),
            scopes=frozenset(section.scopes or settings.scopes),
            user_claim=section.user_claim or provider.user_claim,
            domains=None if open_to_all else frozenset(domain.lower() for domain in section.domains or ()),
            leeway=section.leeway,
        ),
    )


def _misused_scopes(source: Document, vocabulary: list[str]) -> list[Mistake]:
    mistakes = [
        source.mistake(("oauth", "scopes", index), f"unknown scope {name!r}{nearest(name, vocabulary)}")
        for index, name in enumerate(_scopes(source, "oauth", "scopes"))
        if name not in vocabulary
    ]
    twice = [name for index, name in enumerate(vocabulary) if name in vocabulary[:index]]
    return mistakes + [source.mistake(("scopes",), f"the scope {name} is named twice") for name in twice]


def _misused_headers(source: Document) -> list[Mistake]:
    act_as = [name.lower() for name in _strings(source, "act_as", "headers")]
    keepable = {AUTHORIZATION, AUTH_TYPE, *ACT_AS_HEADERS, *act_as, *OVERRIDE_HEADERS}
    mistakes = [
        source.mistake(("identity", "keep", index), f"{name!r} is not one of {', '.join(sorted(keepable))}")
        for index, name in enumerate(_strings(source, "identity", "keep"))
        if name.lower() not in keepable
    ]
    identity = source.data.get("identity")
    prefix = identity.get("prefix") if isinstance(identity, dict) else None
    prefix = prefix if isinstance(prefix, str) else IdentityHeaders().prefix
    taken = {AUTHORIZATION, AUTH_TYPE, "host", *OVERRIDE_HEADERS}
    return mistakes + [
        source.mistake(("act_as", "headers", index), f"{name!r} has another meaning: name a header of its own")
        for index, name in enumerate(act_as)
        if name in taken or name.startswith(prefix)
    ]


def _risks(settings: Settings, source: Document) -> list[Mistake]:
    warnings = []
    for key, address in (("listen", settings.server.listen), ("ops", settings.server.ops)):
        if address is not None and not address.is_local:
            warnings.append(source.mistake(("server", key), _LOOPBACK_WARNING))
    if settings.identity.prefix != IdentityHeaders().prefix:
        warnings.append(source.mistake(("identity", "prefix"), _RULE_WARNING))
    if set(settings.act_as.headers) - set(ACT_AS_HEADERS):
        warnings.append(source.mistake(("act_as", "headers"), _RULE_WARNING))
    if settings.tokens and settings.tokens.enabled and not settings.act_as.allow:
        warnings.append(source.mistake(("act_as",), "allow is empty: no GLOBAL token can act for anybody"))
    if not _kinds(settings):
        warnings.append(source.mistake((), "neither oauth nor tokens is on: only public routes are open"))
    return warnings


def _peppers(file: Path, section: TokensSection | None, environment: Mapping[str, str]) -> dict[str, bytes]:
    source = document.read(file)
    peppers: dict[str, bytes] = {}
    mistakes = []
    for index, setting in enumerate(section.peppers if section else ()):
        path = ("tokens", "peppers", index)
        try:
            pepper = setting.read(file.parent, environment)
        except ValueError as error:
            mistakes.append(source.mistake(path, f"{error}; 'extauthz token create' makes the first pepper file"))
            continue
        if len(pepper) < MIN_PEPPER_BYTES:
            mistakes.append(source.mistake(path, f"pepper {setting.id!r} is shorter than {MIN_PEPPER_BYTES} bytes"))
        peppers[setting.id] = pepper
    if mistakes:
        raise ConfigurationError(mistakes)
    return peppers


def _scopes(source: Document, *path: str) -> list[str]:
    """Return the scopes of a list that are written correctly; the others are listed as mistakes elsewhere."""
    found = []
    for name in _strings(source, *path):
        with contextlib.suppress(ValueError):
            found.append(scope(name))
    return found


def _strings(source: Document, *path: str) -> list[str]:
    value = source.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
