"""The files of a first configuration, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from textwrap import indent

from extauthz.initial.providers import TokenIssuer

EXAMPLES = {"glean-client-api": ("glean-client-api.yaml", "glean-newer-scopes.yaml")}
"""Complete route maps: the first file counts, the others wait until their scopes are added."""
SCHEMAS = ("settings.schema.json", "routes.schema.json")
CONFIGURATION = Path("config/extauthz.yaml")
SUITE = Path("config/tests/routes.yaml")
"""Cases of `extauthz test`, written from the configuration when that has been read."""
PEPPER = Path("data/pepper-p1")
STORE = Path("data/tokens.db")

_WAITING = "# The provider is asked about each new token: print Envoy's configuration again after a change.\ncheck_timeout: 900ms\n"
_BY_TOKEN = "# The token itself tells whether it is one of yours, by its prefix, or one of the provider.\nauth_type: by_token\n\n"
_ACT_AS = (
    "# A GLOBAL token names the user that it acts for in X-Scio-ActAs; with these two lines in a header of yours.\n"
    "# headers: [X-Act-As]\n# only: true\n"
)
_PLAIN = re.compile(r"[A-Z][A-Z0-9_]*").fullmatch
_BEGIN = re.compile(r"[^a-z]*")
_NO_NAME = re.compile(r"[^a-z0-9]+")
_TOKEN_PREFIX_LENGTH = 16


class _Slots(Template):
    """A template whose places begin with "@": the shell has the dollar for itself."""

    delimiter = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApi:
    """What is known of an API: its name, its scopes with the one for reading first, and the prefix of headers for it.

    `domains` are those of its users' e-mail addresses.
    """

    name: str
    scopes: tuple[str, ...]
    header_prefix: str
    domains: tuple[str, ...]
    provider: TokenIssuer | None = None
    example: str | None = None

    @property
    def slug(self) -> str:
        """The name in a path and in the name of a file; "" for a name without letters and digits."""
        return _NO_NAME.sub("-", self.name.lower()).strip("-")

    @property
    def token_prefix(self) -> str:
        """What tokens begin with: lower-case letters and digits, a letter first."""
        return _BEGIN.sub("", self.slug.replace("-", ""), count=1)[:_TOKEN_PREFIX_LENGTH] or "api"


def example_folder() -> Traversable:
    """Return where the complete examples are: in the package, or in the checkout that it is run from."""
    packaged = files("extauthz") / "examples"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "config"


def schema_text(name: str) -> str:
    """Return one of the JSON Schemas, as `make reference` wrote it."""
    return (example_folder() / "schema" / name).read_text("utf-8")


def example_scopes(name: str) -> tuple[str, ...]:
    """Return the scopes that the route map of an example names."""
    text = (example_folder() / "routes" / EXAMPLES[name][0]).read_text("utf-8")
    # That of the search first, which is tried with a first token.
    return tuple(sorted(set(re.findall(r"scope: ([A-Z]+)", text)), key=lambda scope: (scope != "SEARCH", scope)))


def texts_of(api: NewApi) -> Mapping[Path, str]:
    """Return every file but the pepper, relative to the folder of the configuration."""
    if api.example is None:
        routes = {f"{api.slug}.yaml": _routes(api)}
    else:
        folder = example_folder() / "routes"
        routes = {name: (folder / name).read_text("utf-8") for name in EXAMPLES[api.example]}
    first = next(iter(routes))
    return {
        CONFIGURATION: _configuration(api, f"routes/{first}"),
        **{Path("config/routes") / name: text for name, text in routes.items()},
        # What the first line of these files names, for editors.
        **{Path("config/schema") / name: schema_text(name) for name in SCHEMAS},
        Path("config/tests/requests.sh"): _tests(api),
        # Whatever the folder is part of: nothing of it gets into a repository.
        Path("data/.gitignore"): "*\n",
    }


def _configuration(api: NewApi, route_file: str) -> str:
    is_own = api.example is None
    return _filled(
        "extauthz.yaml",
        title=_title(api),
        check_timeout=_WAITING if api.provider is not None and api.provider.is_asked else "",
        oauth="" if api.provider is None else _oauth(api.provider),
        auth_type=_BY_TOKEN if is_own else "",
        token_prefix=api.token_prefix,
        header_prefix=api.header_prefix,
        realm=json.dumps(api.name),
        act_as_headers=_ACT_AS if is_own else "",
        users=", ".join(json.dumps(f"*@{domain}") for domain in api.domains),
        scopes=", ".join(map(_scope, api.scopes)),
        route_files=route_file,
    )


def _oauth(provider: TokenIssuer) -> str:
    more = []
    if provider.audience is not None:
        more.append(f"# What the tokens are for.\naudience: {json.dumps(provider.audience)}\n")
    if provider.user_claims:
        why = "# The user's e-mail address: the first of these claims that a token has.\n"
        more.append(f"{why}user_claim: {_list(provider.user_claims)}\n")
    if provider.domains:
        more.append(f"# Only these users.\ndomains: {_list(provider.domains)}\n")
    return _filled(
        "oauth.yaml",
        provider=provider.kind or "",
        issuer="" if provider.is_the_only_one else f"issuer: {json.dumps(provider.issuer)}\n",
        client_ids=_list(provider.client_ids),
        more="".join(more),
        granted=provider.granted,
    )


def _list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(json.dumps, texts))}]"


def _routes(api: NewApi) -> str:
    lines = "".join(f"  - {{match: {json.dumps(match)}, scope: {_scope(scope)}}}\n" for match, scope in _matches(api))
    return _filled("routes.yaml", title=_title(api), routes=lines)


def _matches(api: NewApi) -> Iterator[tuple[str, str]]:
    """Yield a line for each scope: reading, changing, and one more operation for each further one."""
    reading, changing, *others = (*api.scopes, *api.scopes[-1:]) if len(api.scopes) == 1 else api.scopes
    yield f"GET|HEAD /{api.slug}", reading
    yield f"GET|HEAD /{api.slug}/{{id}}", reading
    yield f"POST /{api.slug}", changing
    yield f"PUT|PATCH|DELETE /{api.slug}/{{id}}", changing
    for scope in others:
        yield f"POST /{api.slug}/{{id}}/{_NO_NAME.sub('-', scope.lower())}", scope


def _tests(api: NewApi) -> str:
    method, path = ("GET", f"/{api.slug}") if api.example is None else ("POST", "/rest/api/v1/search")
    return _filled("requests.sh", scope=api.scopes[0], method=method, path=path)


def _title(api: NewApi) -> str:
    return f"the API {json.dumps(api.name)}"


def _scope(name: str) -> str:
    """Write a scope as YAML has to have it."""
    return name if _PLAIN(name) else json.dumps(name)


def _filled(template: str, **values: str) -> str:
    """Fill in a template; what a value on a line of its own holds is indented as that line is, and an empty one leaves no line."""
    parts = []
    for line in (files(__package__) / template).read_text("utf-8").splitlines(keepends=True):
        place = line.strip()
        if place.startswith("@") and place[1:] in values:
            parts.append(indent(values[place[1:]], line[: line.index("@")]))
        else:
            parts.append(_Slots(line).substitute(values))
    return "".join(parts)
