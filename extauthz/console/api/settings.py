"""OAuth settings: read what counts, save a version, and go back to one."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from extauthz.admin import oauth_settings
from extauthz.admin.metadata import utc
from extauthz.admin.oauth_settings import MAX_PAGE, SavedVersion
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Operation
from extauthz.config.saved_settings import KEYS
from extauthz.console.api.operations import IF_MATCH, ApiAnswer, ApiOperation, ApiRequest, HeaderParameter, is_expected
from extauthz.console.api.problems import ApiProblem, FieldError
from extauthz.console.api.values import Answer, Body, ScopeName, Time, Whole

MAX_VERSION = 10**15 - 1
MAX_ENTRIES = 100
_MATCH = HeaderParameter(
    IF_MATCH,
    'The ETag of the settings that you read, like "7": nothing is saved if another version counts by then.',
    is_required=True,
)
_VERSION = re.compile(r"[1-9][0-9]{0,14}").fullmatch
_PLACES = {key: f"body/{key}" for key in KEYS}

Text = Annotated[str, Field(min_length=1, max_length=500)]
Texts = Annotated[tuple[Text, ...], Field(max_length=MAX_ENTRIES)]


class OAuthSettingsBody(Body):
    """What admins may change; what is left out is not set. The rules of each provider stand in oauth-providers.md."""

    enabled: Annotated[bool, Field(strict=True, description="Whether OAuth access tokens are accepted.")]
    provider: Annotated[Literal["azure", "gsuite", "okta", "onelogin"], Field(description="Whose tokens are accepted.")]
    issuer: Annotated[str, Field(max_length=500, description="Also in the short form of the original.")] = ""
    client_ids: Annotated[Texts, Field(min_length=1, description="Tokens of all other applications are refused.")]
    audience: Annotated[Texts, Field(description="See `oauth.audience` of the configuration.")] = ()
    domains: Annotated[Texts, Field(description="See `oauth.domains`.")] = ()
    hosted_domains: Annotated[Texts, Field(description="See `oauth.hosted_domains`.")] = ()
    scopes: Annotated[tuple[ScopeName, ...], Field(max_length=MAX_ENTRIES, description="See `oauth.scopes`.")] = ()


class VersionQuery(Body):
    """Which versions to list."""

    before: Annotated[int | None, Whole(1, MAX_VERSION, is_text=True), Field(description="Versions before this one.")] = None
    limit: Annotated[int, Whole(1, MAX_PAGE, is_text=True), Field(description="Versions of a page.")] = 100


class VersionAnswer(Answer):
    """A saved version. `problem` says why sidecars do not use it; then it has no values."""

    version: int
    at: Time
    actor: str
    source: str
    values: dict[str, Any]
    problem: str | None


class OAuthSettingsAnswer(Answer):
    """The settings that count, one entry of `providers` for each; they can be changed here if `is_managed`."""

    is_managed: bool
    place: str
    version: int
    enabled: bool
    providers: list[dict[str, Any]]
    saved: VersionAnswer | None


class VersionList(Answer):
    """Versions, the newest first; `before` is what the next page begins with, null at the end."""

    versions: list[VersionAnswer]
    before: int | None


def read(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return the settings that count."""
    found = oauth_settings.current(request.administration, request.configuration, request.actor)
    if isinstance(found, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, found)
    content = OAuthSettingsAnswer(
        is_managed=found.is_managed,
        place=found.place,
        version=found.version,
        enabled=found.enabled,
        providers=[dict(values) for values in found.providers],
        saved=_shown(found.saved) if found.saved else None,
    )
    return ApiAnswer(content, {"ETag": _etag(found.version)})


def save(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Save settings behind the version that was read."""
    wanted = request.body.model_dump(mode="json", exclude_defaults=True)

    def saved(expected: int) -> SavedVersion | Refused:
        administration, configuration = request.administration, request.configuration
        return oauth_settings.save(administration, configuration, request.actor, wanted, request.at, expected=expected)

    return _changed(request, saved)


def history(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return a page of versions."""
    query: VersionQuery = request.query
    # One more than is asked for tells whether there are others.
    limit = min(query.limit + 1, MAX_PAGE)
    found = oauth_settings.history(request.administration, request.actor, before=query.before, limit=limit)
    if isinstance(found, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, found)
    shown = found[: query.limit]
    before = shown[-1].version if shown and shown[-1].version > 1 and len(found) >= limit else None
    pages = {"next": {"before": str(before)}} if before is not None else {}
    return ApiAnswer(VersionList(versions=[_shown(version) for version in shown], before=before), pages=pages)


def go_back(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Save once more what an earlier version says."""
    number = _VERSION(request.path["version"])
    version = int(number[0]) if number else 0
    known = oauth_settings.history(request.administration, request.actor, before=version + 1, limit=1)
    if not isinstance(known, Refused) and (not known or known[0].version != version):
        return ApiProblem(HTTPStatus.NOT_FOUND, "there is no version of this number")

    def saved(expected: int) -> SavedVersion | Refused:
        administration, configuration = request.administration, request.configuration
        return oauth_settings.go_back(administration, configuration, request.actor, version, request.at, expected=expected)

    return _changed(request, saved)


def _changed(request: ApiRequest, save_behind: Callable[[int], SavedVersion | Refused]) -> ApiAnswer | ApiProblem:
    """Save something behind the version that the sender read, if that still counts when it is saved."""
    found = oauth_settings.current(request.administration, request.configuration, request.actor)
    if isinstance(found, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, found)
    if found.is_managed and not is_expected(request, _etag(found.version)):
        return _outdated(f"version {found.version} counts by now: read it, and decide anew")
    outcome = save_behind(found.version)
    if isinstance(outcome, SavedVersion):
        return ApiAnswer(_shown(outcome), {"ETag": _etag(outcome.version)})
    match outcome.refusals[0].field:
        case "actor":
            return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, outcome)
        case "version" | "managed_by":
            return ApiProblem.of_refusal(HTTPStatus.CONFLICT, outcome)
    return ApiProblem.of_refusal(HTTPStatus.UNPROCESSABLE_ENTITY, outcome, _PLACES)


def _outdated(detail: str) -> ApiProblem:
    error = FieldError(_MATCH.place, "this is not the ETag of the settings now")
    return ApiProblem(HTTPStatus.PRECONDITION_FAILED, detail, (error,))


def _shown(version: SavedVersion) -> VersionAnswer:
    return VersionAnswer(
        version=version.version,
        at=str(utc(version.at)),
        actor=version.actor,
        source=version.source,
        values=dict(version.values),
        problem=version.problem,
    )


def _etag(version: int) -> str:
    return f'"{version}"'


_OF_CHANGES = (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED)

OPERATIONS = (
    ApiOperation(
        "readOAuthSettings",
        "GET",
        "/settings/oauth",
        "Read the OAuth settings that count",
        read,
        OAuthSettingsAnswer,
        answer_headers=("ETag",),
    ),
    ApiOperation(
        "saveOAuthSettings",
        "PUT",
        "/settings/oauth",
        "Save the OAuth settings as a new version",
        save,
        VersionAnswer,
        needs=Operation.SETTINGS,
        body=TypeAdapter(OAuthSettingsBody),
        headers=(_MATCH,),
        answer_headers=("ETag",),
        problems=_OF_CHANGES,
    ),
    ApiOperation(
        "listOAuthSettings",
        "GET",
        "/settings/oauth/versions",
        "List saved versions of the OAuth settings",
        history,
        VersionList,
        query=VersionQuery,
        answer_headers=("Link",),
    ),
    ApiOperation(
        "goBackToOAuthSettings",
        "POST",
        "/settings/oauth/versions/{version}/restore",
        "Save an earlier version of the OAuth settings once more",
        go_back,
        VersionAnswer,
        needs=Operation.SETTINGS,
        headers=(_MATCH,),
        answer_headers=("ETag",),
        problems=_OF_CHANGES,
    ),
)
