"""What is looked up about a request that is explained: its route, the lines of the configuration, the headers for the upstream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from extauthz.admin.route_map import routes_of
from extauthz.config.document import Document, KeyPath
from extauthz.config.loader import Configuration
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import DECISION_ID, Allow, Decision, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.paths import Path, parse_with_slashes
from extauthz.core.routes import STAR_METHODS, Route
from extauthz.responses.client_headers import spelled
from extauthz.tools.calls import headers_for_upstream
from extauthz.tools.explain_model import UpstreamHeader
from extauthz.tools.masking import PLACEHOLDER, Mask

SECTIONS = {Kind.ISSUED: "tokens", Kind.OAUTH: "oauth"}
DECISION_ID_SHOWN = "<id of the decision>"
TOKEN_SHOWN = "<signed token>"

_NO_ROUTE = (Reason.ROUTE_UNKNOWN, Reason.METHOD_NOT_ALLOWED, Reason.ROUTE_DENIED)


@dataclass(frozen=True)
class View:
    """A request, what it comes to, and what is looked up about it when a check is described."""

    configuration: Configuration
    request: Request
    planned: Plan | Decision
    decision: Decision | None
    evidence: Identity | Reason | None
    mask: Mask

    @property
    def identity(self) -> Identity | None:
        """Who holds the token, as far as that was verified and counts."""
        return self.evidence if isinstance(self.planned, Plan) and isinstance(self.evidence, Identity) else None

    @property
    def is_described(self) -> bool:
        """Whether the token stands for a caller who was described."""
        return isinstance(self.planned, Plan) and self.planned.credential.token.endswith(PLACEHOLDER)

    @cached_property
    def route(self) -> Route | None:
        """The route that the request matched."""
        if isinstance(self.planned, Plan):
            return self.planned.route
        table, name = self.configuration.policy.table_for(self.request.host), self.planned.route
        if name is None or isinstance(table, Reason):
            return None
        return next((route for route in routes_of(table) if route.name == name), None)

    @property
    def route_place(self) -> str:
        """File and line of the route."""
        return self.configuration.route_places.get(self.route.name, "") if self.route else ""

    @cached_property
    def path(self) -> str:
        """The canonical path, or as it came where there is none; never the query."""
        raw = self.request.path.partition("?")[0]
        path = parse_with_slashes(raw)
        return path.canonical if isinstance(path, Path) else raw

    @property
    def reads_method_in_query(self) -> bool:
        """Whether the upstream may take a method from the query."""
        table = self.configuration.policy.table_for(self.request.host)
        return isinstance(table, Reason) or table.upstream.overrides_method

    @cached_property
    def _document(self) -> Document:
        return self.configuration.document()

    def place(self, *path: str | int) -> str:
        """Return file and line of a key; of a section that is not written the file alone."""
        key: KeyPath = path
        is_written = key[:1] in self._document.lines
        return self._document.problem(key, "").place if is_written else str(self.configuration.file)

    def section_place(self, kind: Kind) -> str:
        """Return where a kind of token is configured: for OAuth the provider, if the token names one."""
        section, oauth = SECTIONS[kind], self.configuration.settings.oauth
        identity = self.identity
        if kind is Kind.OAUTH and oauth is not None and hasattr(oauth, "providers") and identity is not None:
            name = identity.actor.split(":")[1]
            index = next((at for at, one in enumerate(oauth.entries) if name in (one.name, one.provider)), None)
            return self.place(section) if index is None else self.place(section, "providers", index)
        return self.place(section)

    def opened_methods(self) -> dict[str, str]:
        """Return the methods for which this path has a route that does not deny, with the route's name."""
        found = {}
        for method in STAR_METHODS:
            request = Request(method, self.request.path.partition("?")[0], self.request.host, {}, raw=True, decision_id=DECISION_ID)
            match plan(self.configuration.policy, request):
                case Allow(route=name):
                    found[method] = name
                case Deny(reason=reason, route=str(name)) if reason not in _NO_ROUTE:
                    found[method] = name
        return found

    def act_as_rule(self, user: str) -> tuple[str, str, str] | None:
        """Return the list, the pattern and the place of the line of act_as that decides about a user; None where none does."""
        section = self.configuration.settings.act_as
        everybody = compile_patterns(["*@*"])
        for index, pattern in enumerate(section.deny):
            if not ActAs(allow=everybody, deny=compile_patterns([pattern])).permits(user):
                return "deny", pattern, self.place("act_as", "deny", index)
        for index, pattern in enumerate(section.allow):
            if ActAs(allow=compile_patterns([pattern])).permits(user):
                return "allow", pattern, self.place("act_as", "allow", index)
        return None

    def spelled(self, header: str) -> str:
        """Return the name of a header as people write it."""
        return spelled(header, self.configuration.settings.header_names)

    def act_as_values(self) -> dict[str, str]:
        """Return the act-as headers that are not blank."""
        return {name: value for name in self.configuration.policy.act_as.headers if (value := self.request.header(name))}


def upstream_headers(view: View) -> tuple[tuple[UpstreamHeader, ...], tuple[str, ...]]:
    """Return the headers that the upstream gets, and the names of those of the request that it does not."""
    request, decision = view.request, view.decision
    shown = headers_for_upstream(request, decision) if decision is not None else None
    if shown is None or not isinstance(decision, (Allow, WouldDeny)):
        return (), ()
    ours = dict(decision.edits.set)
    if isinstance(decision, Allow) and decision.identity is not None and view.configuration.internal_token is not None:
        ours[view.configuration.policy.identity.names["token"]] = TOKEN_SHOWN
    # Whom a token acts for is written by its holder.
    written = {decision.user} if decision.identity is not None and decision.identity.user is None else set()
    values = {name: ours.get(name) for name in dict.fromkeys((*shown, *ours)) if not name.startswith(":")}
    headers = tuple(
        UpstreamHeader(
            name,
            DECISION_ID_SHOWN if value == DECISION_ID else view.mask(value) if value is not None and value in written else value,
        )
        for name, value in values.items()
    )
    return headers, tuple(name for name in request.headers if name not in values and not name.startswith(":"))
