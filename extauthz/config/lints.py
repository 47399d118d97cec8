"""The names of what is no error and worth a look; each says what to look at, for the documentation and for reports."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Lint(StrEnum):
    """A lint: its value is the name that stands behind a warning, and in the comment that silences it."""

    meaning: str
    __hash__ = str.__hash__

    def __new__(cls, value: str, meaning: str) -> Self:
        """Make a member that is its value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Routes.
    NEVER_MATCHES = (
        "never-matches",
        "No request leads to this route, whatever its method and path: more specific routes take all of them.",
    )
    PUBLIC_UNDER_PROTECTED = (
        "public-under-protected",
        "A route without a token takes a part of a route that asks for one, or that denies.",
    )
    ANY_OF_HIDES_STRICTER = (
        "any-of-hides-stricter",
        "A route that is content with one of several scopes takes a part of a route that asks for more.",
    )
    WEAKER_UNDER_STRICTER = ("weaker-under-stricter", "Another route that lets more callers in takes a part of this one.")
    READ_NEEDS_MORE = (
        "read-needs-more",
        "GET or HEAD asks for more than a method that writes to the same path: whoever may not read can write.",
    )
    OPEN_READ = ("open-read", "GET or HEAD is public, and a method that writes to the same path is not.")
    ANONYMOUS_WRITE = ("anonymous-write", "A method that may change something is open to anonymous tokens, or to everybody.")
    OTHER_SPELLING = (
        "other-spelling",
        "In another letter case, or with another end, the path leads to a route that lets others in; told once for a file.",
    )
    DECODED_SLASHES = (
        "decoded-slashes",
        "For an upstream that decodes %2F, paths of it are those of a route that asks for something else; told once for a file.",
    )
    QUESTION_MARK = ("question-mark", "A pattern holds a question mark: queries are not matched.")
    NOT_REVIEWED = (
        "not-reviewed",
        "So many patterns overlap that it was not looked at whether weaker routes take a part of this one, and of those behind it.",
    )
    COSTLY_LOOK_UP = ("costly-look-up", "A look-up may visit many nodes, because literals and parameters share levels.")
    USELESS_AUDIENCE = ("useless-audience", "A route names an audience, and no internal tokens are made.")
    MONITOR_MODE = ("monitor-mode", "Some or all routes forward what they would refuse.")
    UNUSED_SCOPE = ("unused-scope", "No route asks for this scope of the vocabulary.")

    # Settings.
    ACT_AS_EVERYBODY = ("act-as-everybody", "GLOBAL tokens may act for every address of every domain.")
    NOBODY_TO_ACT_FOR = ("nobody-to-act-for", "GLOBAL tokens may act for nobody.")
    PROVIDER_WITHOUT_DOMAINS = (
        "provider-without-domains",
        "Users of every domain that the provider vouches for come in, guests and partners too.",
    )
    EVERYBODYS_DOMAIN = ("everybodys-domain", "Everybody who makes an account at the provider comes in.")
    TENANTS_SHARE_USERS = ("tenants-share-users", "Whoever runs one of several tenants can name users of the others.")
    EVERY_CLIENT = ("every-client", "Tokens of every client of an issuer count.")
    INTROSPECTION_OF_SEVERAL_CLIENTS = (
        "introspection-of-several-clients",
        "The provider is asked as one client about tokens of several.",
    )
    SHORT_CHECK_TIMEOUT = ("short-check-timeout", "The issuer is asked about tokens, and a check does not wait for so long.")
    NO_TOKENS = ("no-tokens", "Neither oauth nor tokens is on.")
    OPEN_LISTENER = ("open-listener", "Other machines can ask for decisions, and so try tokens.")
    OPEN_OPS = ("open-ops", "Other machines can read metrics and readiness.")
    WEAK_DATABASE_CONNECTION = (
        "weak-database-connection",
        "Somebody on the way to the database may get the password, or answer.",
    )
    ENVOY_HEADER_RULES = ("envoy-header-rules", "Envoy needs other mutation rules for a header of this name.")
    KEPT_HOST_HEADER = ("kept-host-header", "A client can name the site of an upstream that believes it.")
    VISITORS_SHARE_AN_ADDRESS = ("visitors-share-an-address", "All visitors of the console share the address of its proxy.")
    CERTIFICATE_DATES = ("certificate-dates", "A certificate that is here ended, or ends soon.")

    # Comments.
    UNUSED_IGNORE = ("unused-ignore", "A comment silences a lint that finds nothing there.")


LASTING = frozenset({Lint.CERTIFICATE_DATES, Lint.UNUSED_IGNORE})
"""What no comment silences: the one comes with time, the other is about comments."""
