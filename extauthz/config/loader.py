"""From the path of extauthz.yaml to everything that can be built without touching the world."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from extauthz.config import document, routes
from extauthz.config.document import ConfigurationError, Document, Mistake
from extauthz.config.problems import mistakes_of, unknown_scope
from extauthz.config.settings import OAuthSection, Settings, TokensSection
from extauthz.config.values import scope
from extauthz.core.act_as import ACT_AS_HEADERS, ActAs, compile_patterns
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION, Kind
from extauthz.core.identity import MAX_VALUE, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.policy import Policy
from extauthz.core.providers import ProviderRules, provider_of

MIN_PEPPER_BYTES = 32
_LISTEN_WARNING = "can be reached by other machines, which can then try tokens: listen on loopback or a unix socket"
_OPS_WARNING = "can be reached by other machines, which can then read metrics and readiness: listen on loopback or a unix socket"
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

    def mistake(self, path: document.KeyPath, message: str) -> Mistake:
        """Describe a mistake that only the world outside shows, with its line."""
        return document.read(self.file).mistake(path, message)

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
        what = "the file is empty" if source.data is None else "the file is not a mapping"
        raise ConfigurationError(mistakes or [source.mistake((), f"{what}: start with version: 1")])
    try:
        settings = Settings.model_validate(source.data)
    except ValidationError as error:
        mistakes += mistakes_of(error, source, Settings)
    vocabulary = [name for _, name in _scopes(source, "scopes")]
    mistakes += [
        *_misused_scopes(source, vocabulary),
        *_misused_headers(source),
        *_misused_pepper_ids(source),
        *_missing_audience(source),
    ]
    placed: list[routes.Placed] = []
    for name, wrong in _route_files(file, source):
        if not wrong:
            found, wrong = routes.read(name, vocabulary)
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
    provider = provider_of(section.provider, section.issuer) if section and section.enabled else None
    if section is None or provider is None:
        return ()
    open_to_all = section.domains is None or "*" in section.domains
    own = [audience for client in section.client_ids for audience in (client, f"api://{client}")] if provider.own_audience else []
    return (
        ProviderRules(
            name=section.name or section.provider,
            provider=provider,
            issuer=section.issuer,
            client_ids=frozenset(section.client_ids),
            audience=frozenset(section.audience or own),
            scopes=frozenset(section.scopes or settings.scopes),
            user_claim=section.user_claim or provider.user_claim,
            domains=None if open_to_all else frozenset(domain.lower() for domain in section.domains or ()),
            leeway=section.leeway,
            guests=section.guests,
        ),
    )


def _missing_audience(source: Document) -> list[Mistake]:
    """Ask for the audience where the provider's tokens do not name the client as theirs."""
    oauth = source.data.get("oauth")
    if not isinstance(oauth, dict) or oauth.get("audience") is not None or oauth.get("provider") != "okta":
        return []
    message = (
        "is missing: write it, like audience: api://default "
        "(it stands in the settings of the authorization server, and tokens for other audiences are not yours)"
    )
    return [source.mistake(("oauth", "audience"), message)]


def _misused_scopes(source: Document, vocabulary: list[str]) -> list[Mistake]:
    mistakes = [
        source.mistake(("oauth", "scopes", index), unknown_scope(name, vocabulary))
        for index, name in _scopes(source, "oauth", "scopes")
        if vocabulary and name not in vocabulary
    ]
    held = ",".join(dict(_scopes(source, "oauth", "scopes") or _scopes(source, "scopes")).values())
    if isinstance(source.data.get("oauth"), dict) and len(held) > MAX_VALUE:
        message = (
            f"OAuth tokens would hold {len(held)} bytes of scope names, a header for the upstream ends at {MAX_VALUE}: name fewer"
        )
        mistakes.append(source.mistake(("oauth", "scopes"), message))
    twice = _twice(_scopes(source, "scopes"))
    return mistakes + [source.mistake(("scopes", index), f"the scope {name} is named twice: remove one") for index, name in twice]


def _misused_pepper_ids(source: Document) -> list[Mistake]:
    tokens = source.data.get("tokens")
    peppers = tokens.get("peppers") if isinstance(tokens, dict) else None
    found = [
        (index, str(pepper.get("id")))
        for index, pepper in enumerate(peppers if isinstance(peppers, list) else ())
        if isinstance(pepper, dict) and "id" in pepper
    ]
    message = "another pepper above has the same id: give each its own"
    return [source.mistake(("tokens", "peppers", index, "id"), message) for index, _ in _twice(found)]


def _route_files(file: Path, source: Document) -> Iterator[tuple[Path, list[Mistake]]]:
    """Yield each route file, and why it cannot be read."""
    names = [(index, file.parent / name) for index, name in _strings(source, "routes") if name]
    again = {index for index, _ in _twice((index, os.path.normpath(name)) for index, name in names)}
    for index, name in names:
        wrong = []
        if index in again:
            wrong = ["this file is named twice: remove one"]
        elif not name.is_file():
            wrong = [f"{name} is not a file: name the route files one by one" if name.exists() else f"no such file: {name}"]
        yield name, [source.mistake(("routes", index), message) for message in wrong]


def _twice(items: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the items whose text stands in an earlier one."""
    first: dict[str, int] = {}
    return [(index, text) for index, text in items if first.setdefault(text, index) != index]


def _misused_headers(source: Document) -> list[Mistake]:
    act_as = [(index, name.lower()) for index, name in _strings(source, "act_as", "headers")]
    keepable = {AUTHORIZATION, AUTH_TYPE, *ACT_AS_HEADERS, *(name for _, name in act_as), *OVERRIDE_HEADERS}
    mistakes = [
        source.mistake(("identity", "keep", index), f"{name!r} is not one of {', '.join(sorted(keepable))}")
        for index, name in _strings(source, "identity", "keep")
        if name.lower() not in keepable
    ]
    identity = source.data.get("identity")
    prefix = identity.get("prefix") if isinstance(identity, dict) else None
    prefix = prefix if isinstance(prefix, str) else IdentityHeaders().prefix
    taken = {AUTHORIZATION, AUTH_TYPE, "host", *OVERRIDE_HEADERS}
    return mistakes + [
        source.mistake(("act_as", "headers", index), f"{name!r} has another meaning: name a header of its own")
        for index, name in act_as
        if name in taken or name.startswith(prefix)
    ]


def _risks(settings: Settings, source: Document) -> list[Mistake]:
    warnings = []
    addresses = (("listen", settings.server.listen, _LISTEN_WARNING), ("ops", settings.server.ops, _OPS_WARNING))
    for key, address, warning in addresses:
        if address is not None and not address.is_local:
            warnings.append(source.mistake(("server", key), warning))
    if settings.identity.prefix != IdentityHeaders().prefix:
        warnings.append(source.mistake(("identity", "prefix"), _RULE_WARNING))
    if set(settings.act_as.headers) - set(ACT_AS_HEADERS):
        warnings.append(source.mistake(("act_as", "headers"), _RULE_WARNING))
    if settings.tokens and settings.tokens.enabled and not settings.act_as.allow:
        warnings.append(source.mistake(("act_as", "allow"), "is empty: no GLOBAL token can act for anybody"))
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
            missing = setting.file is not None and not (file.parent / setting.file).exists()
            way_out = "; 'extauthz token create' makes the first pepper file" if missing else ""
            mistakes.append(source.mistake(path, f"{error}{way_out}"))
            continue
        if len(pepper) < MIN_PEPPER_BYTES:
            mistakes.append(source.mistake(path, f"pepper {setting.id!r} is shorter than {MIN_PEPPER_BYTES} bytes"))
        peppers[setting.id] = pepper
    if mistakes:
        raise ConfigurationError(mistakes)
    return peppers


def _scopes(source: Document, *path: str) -> list[tuple[int, str]]:
    """Return the scopes of a list that are written correctly; the others are listed as mistakes elsewhere."""
    found = []
    for index, name in _strings(source, *path):
        with contextlib.suppress(ValueError):
            found.append((index, scope(name)))
    return found


def _strings(source: Document, *path: str) -> list[tuple[int, str]]:
    """Return the texts of a list with their positions in it."""
    value = source.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return [(index, item) for index, item in enumerate(value) if isinstance(item, str)] if isinstance(value, list) else []
