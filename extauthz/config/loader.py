"""From the path of extauthz.yaml to everything that can be built without touching the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from extauthz.config import (
    answers,
    completeness,
    cross_checks,
    document,
    internal_token,
    policies,
    risks,
    routes,
    saved_settings,
    scope_checks,
    sendable,
    tables,
)
from extauthz.config.digests import digest
from extauthz.config.document import Document
from extauthz.config.files import Files
from extauthz.config.messages import problems_of
from extauthz.config.oauth import OAuthCommon
from extauthz.config.provider_rules import provider_rules
from extauthz.config.saved_settings import Saved, SavedSettings
from extauthz.config.secrets import Secrets
from extauthz.config.settings import CertificateSection, Settings, TlsSection, TokensSection
from extauthz.config.values import Secret
from extauthz.config.wording import bounded_hints
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.core.policy import Policy
from extauthz.core.providers import ProviderRules
from extauthz.errors import ConfigurationError, Problem

T = TypeVar("T")
MIN_PEPPER_BYTES = 32
TlsFiles = tuple[Path, Path, Path | None, frozenset[str] | None]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A valid configuration; `file` is where it stands, `warnings` are worth a look but do not stop anything.

    `files` holds what it was made of, and its secrets as soon as they are read. `route_places` tells file and
    line of each route. `audiences` are those of internal tokens by the name of the route, where it is not that of the section.
    """

    file: Path
    settings: Settings
    policy: Policy
    providers: tuple[ProviderRules, ...]
    warnings: tuple[Problem, ...]
    files: Files
    route_places: Mapping[str, str]
    audiences: Mapping[str, str]
    saved: Saved | None = None

    @property
    def yaml_files(self) -> tuple[Path, ...]:
        """This file and its route files."""
        return (self.file, *(self.file.parent / name for name in self.settings.routes))

    @property
    def store_place(self) -> Path | str | None:
        """The SQLite file of the token store, or its PostgreSQL address, or None when issued tokens are off."""
        tokens = self.settings.tokens
        return self._store_place(tokens) if tokens is not None and tokens.enabled else None

    @property
    def settings_place(self) -> Path | str | None:
        """The store that holds the OAuth settings, whether tokens are issued or not; None where the file holds them."""
        tokens = self.settings.tokens
        return self._store_place(tokens) if tokens is not None and self.saved is not None else None

    @property
    def settings_version(self) -> int:
        """The version of the OAuth settings in the store that counts; 0 for none, and where the file has them."""
        return self.saved.version if isinstance(self.saved, SavedSettings) else 0

    def _store_place(self, tokens: TokensSection) -> Path | str:
        path = tokens.store.removeprefix("sqlite:///")
        return tokens.store if path == tokens.store else self.file.parent / path

    def tls_files(self, tls: CertificateSection | None) -> TlsFiles | None:
        """Return the files of certificate, key and authorities of clients, and who of these may connect; None without TLS."""
        if tls is None:
            return None
        folder, names = self.file.parent, tls.allowed_names if isinstance(tls, TlsSection) else None
        client_ca = folder / tls.client_ca if tls.client_ca else None
        return folder / tls.certificate, folder / tls.key, client_ca, None if names is None else frozenset(names)

    def read_secrets(self, environment: Mapping[str, str]) -> Secrets:
        """Read every secret and bundle, so that `files` holds them; raises ConfigurationError with all that is wrong with them."""
        problems: list[Problem] = []

        def attempt(reader: Callable[[Mapping[str, str]], T]) -> T | None:
            try:
                return reader(environment)
            except ConfigurationError as error:
                problems.extend(error.problems)
                return None

        secrets = Secrets(
            attempt(self.peppers) or {},
            attempt(self.client_secrets) or {},
            attempt(self.proxy_auth),
            attempt(self.store_password),
            attempt(self.internal_token_keys) or {},
            attempt(self.tracing_headers) or {},
        )
        oauth = self.settings.oauth
        if oauth is not None and oauth.enabled and oauth.ca_file:
            path = self.file.parent / oauth.ca_file
            try:
                self.files.read(path)
            except (OSError, ValueError) as error:
                problems.append(self.problem(("oauth", "ca_file"), f"{path}: {getattr(error, 'strerror', None) or error}"))
        if problems:
            raise ConfigurationError(problems)
        return secrets

    def store_password(self, environment: Mapping[str, str]) -> str | None:
        """Read the password of a PostgreSQL store; raises ConfigurationError."""
        place = self.settings.tokens.store_password if self.settings.tokens else None
        if place is None:
            return None
        return sendable.password(self.file, self.files, (("tokens", "store_password"), place), environment)

    def pepper_file(self, index: int = 0) -> Path | None:
        """Where the pepper of this index is kept, or None when it is in the environment."""
        name = self.settings.tokens.peppers[index].file if self.settings.tokens else None
        return None if name is None else self.file.parent / name

    def problem(self, path: document.KeyPath, message: str) -> Problem:
        """Describe a problem that only the world outside shows, with its line."""
        return self.document().problem(path, message)

    def document(self) -> Document:
        """Read the file once more, with the OAuth settings of the store in it."""
        source = document.read(self.file, self.files)
        if self.saved is not None:
            saved_settings.overlay(source, self.saved)
        return source

    def peppers(self, environment: Mapping[str, str]) -> dict[str, bytes]:
        """Read the peppers, the newest first; raises ConfigurationError."""
        return _peppers(self, environment)

    def client_secrets(self, environment: Mapping[str, str]) -> dict[str, bytes]:
        """Read the client secrets of the OAuth providers, by the providers' names; raises ConfigurationError."""
        section = self.settings.oauth
        several = section is not None and hasattr(section, "providers")
        places: dict[str, tuple[document.KeyPath, Secret]] = {}
        for index, entry in enumerate(section.entries if section and section.enabled else ()):
            if entry.client_secret is not None:
                path = ("oauth", "providers", index, "client_secret") if several else ("oauth", "client_secret")
                places[entry.name or entry.provider] = path, entry.client_secret
        return sendable.secrets(self.file, self.files, places, environment)

    def proxy_auth(self, environment: Mapping[str, str]) -> tuple[str, str] | None:
        """Read user and password for the proxy, None where it wants none; raises ConfigurationError."""
        section = self.settings.oauth
        proxy = section.proxy if section and section.enabled else None
        if proxy is None or proxy.user is None or proxy.password is None:
            return None
        secrets = sendable.secrets(self.file, self.files, {"proxy": (("oauth", "proxy", "password"), proxy.password)}, environment)
        return proxy.user, secrets["proxy"].decode()

    def console_client_secret(self, environment: Mapping[str, str]) -> bytes | None:
        """Read the secret of the client of logins, None for a public one; only the console does. Raises ConfigurationError."""
        oidc = self.settings.console.oidc if self.settings.console else None
        if oidc is None or oidc.client_secret is None:
            return None
        places = {"console": (("console", "oidc", "client_secret"), oidc.client_secret)}
        return sendable.secrets(self.file, self.files, places, environment)["console"]

    @property
    def internal_token(self) -> internal_token.InternalTokenSection | None:
        """The section of internal tokens, or None when they are off."""
        section = self.settings.internal_token
        return section if section is not None and section.enabled else None

    def internal_token_keys(self, environment: Mapping[str, str]) -> dict[str, bytes]:
        """Read the private keys of internal tokens, the one that signs first; raises ConfigurationError."""
        section = self.internal_token
        return internal_token.private_keys(self.file, section, environment, self.files) if section else {}

    def tracing_headers(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Read what the collector of spans gets besides, by header name; raises ConfigurationError."""
        places = {name: (("tracing", "headers", name), place) for name, place in self.settings.tracing.headers.items()}
        return {name: value.decode() for name, value in sendable.secrets(self.file, self.files, places, environment).items()}

    def section_digest(self, kind: Kind, secrets: Mapping[str, bytes]) -> bytes:
        """Hash what a verifier of this kind is built from, resolved secrets included."""
        section: OAuthCommon | TokensSection | None = self.settings.oauth if kind is Kind.OAUTH else self.settings.tokens
        parts = (section.model_dump_json() if section else "", "\n".join(self.settings.scopes))
        names_and_secrets = (part for name, secret in secrets.items() for part in (name.encode(), secret))
        return digest(*(part.encode() for part in parts), *names_and_secrets)


@bounded_hints()
def load(
    file: Path, files: Files | None = None, *, end_marker: bool = False, saved: Saved = Reason.STORE_UNAVAILABLE
) -> Configuration:
    """Read extauthz.yaml and its route files; raises ConfigurationError with every problem in all of them.

    With `end_marker` each file must have its end, even if extauthz.yaml itself does not ask for it. `saved` are the OAuth settings
    in the store, which count if the console manages them; while they are not known, no OAuth token can be verified.

    What concerns several sections is read from the plain data, so that a problem in one section hides none in another. `files` are
    read through, and kept: whoever gave them knows which ones it took, also when there are problems.
    """
    files = files or Files()
    source = document.read(file, files)
    end_marker = end_marker or completeness.is_wanted(source)
    problems = [*source.problems, *(completeness.unfinished(file, files) if end_marker else ())]
    settings: Settings | None = None
    if not isinstance(source.data, dict):
        what = "the file is empty" if source.data is None else "the file is not a mapping"
        raise ConfigurationError(problems or [source.problem((), f"{what}: start with version: 1")])
    is_managed = saved_settings.is_managed(source)
    problems += saved_settings.overlay(source, saved) if is_managed else ()
    vocabulary = dict.fromkeys(name for _, name in scope_checks.scopes(source, "scopes"))
    try:
        data = saved_settings.without_oauth(source, saved) if is_managed else source.data
        settings = Settings.model_validate(data, context=vocabulary)
    except ValidationError as error:
        problems += problems_of(error, source, Settings)
    problems += cross_checks.problems(source, vocabulary)
    placed: list[routes.LocatedRoute] = []
    for name, wrong in _route_files(file, source, files):
        if not wrong:
            entries, wrong = routes.read(name, vocabulary, files)
            placed += entries
            wrong += completeness.unfinished(name, files) if end_marker else []
        problems += wrong
    problems += answers.misfits(source, max((" ".join(entry.route.scopes) for entry in placed), key=len, default=""))
    table, hosts, wrong, warnings = tables.compile_tables(placed)
    problems += wrong
    if problems or settings is None:
        raise ConfigurationError(problems)
    monitored, watched = routes.monitored(placed, settings.mode, source)
    policy = policies.policy(settings, table, hosts, monitored=monitored, saved=saved if is_managed else None)
    if settings.internal_token is None:
        warnings += routes.useless_audiences(placed)
    return Configuration(
        file=file,
        settings=settings,
        policy=policy,
        providers=provider_rules(settings),
        warnings=(*risks.risks(settings, policy, source), *watched, *warnings),
        files=files,
        route_places={entry.route.name: entry.place for entry in placed},
        audiences={entry.route.name: entry.audience for entry in placed if entry.audience},
        saved=saved if is_managed else None,
    )


def _route_files(file: Path, source: Document, files: Files) -> Iterator[tuple[Path, list[Problem]]]:
    """Yield each route file, and why it cannot be read."""
    names = [(index, file.parent / name) for index, name in document.strings(source, "routes") if name]
    again = {index for index, _ in cross_checks.twice((index, os.path.normpath(name)) for index, name in names)}
    for index, name in names:
        wrong = []
        if index in again:
            wrong = ["this file is named twice: remove one"]
        elif not files.is_file(name):
            files.missing.add(name)
            wrong = [f"{name} is not a file: name the route files one by one" if name.exists() else f"no such file: {name}"]
        yield name, [source.problem(("routes", index), message) for message in wrong]


def _peppers(configuration: Configuration, environment: Mapping[str, str]) -> dict[str, bytes]:
    section, folder = configuration.settings.tokens, configuration.file.parent
    peppers: dict[str, bytes] = {}
    problems = []
    for index, setting in enumerate(section.peppers if section else ()):
        path = ("tokens", "peppers", index)
        try:
            pepper = setting.read_secret(folder, environment, configuration.files)
        except ValueError as error:
            missing = setting.file is not None and not (folder / setting.file).exists()
            hint = "; 'extauthz token create' makes the first pepper file" if missing else ""
            problems.append(configuration.problem(path, f"{error}{hint}"))
            continue
        if len(pepper) < MIN_PEPPER_BYTES:
            problems.append(configuration.problem(path, f"pepper {setting.id!r} is shorter than {MIN_PEPPER_BYTES} bytes"))
        peppers[setting.id] = pepper
    if problems:
        raise ConfigurationError(problems)
    return peppers
