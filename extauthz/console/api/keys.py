"""Admin keys: what there is, and the end of one. They are made on the command line alone."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from pydantic import Field

from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.admin import keys
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Operation
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import AnswerModel, BodyModel, Time, Truth


class KeyQuery(BodyModel):
    """Which admin keys to list."""

    all: Annotated[Truth, Field(description="Revoked and expired ones too.")] = False


class KeyAnswer(AnswerModel):
    """An admin key: `acts_as` is the role that it has now, null where it does nothing; a use is told by the quarter of an hour."""

    id: str
    description: str
    role: str
    status: str
    acts_as: str | None
    created_at: Time
    created_by: str
    expires_at: Time
    pepper_id: str
    revoked_at: Time | None
    revoked_by: str | None
    last_used_at: Time | None


class KeyList(AnswerModel):
    """Admin keys, the newest first, and at most 1000."""

    keys: list[KeyAnswer]


def list_keys(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return the admin keys."""
    listed = keys.list_keys(request.administration, request.actor, request.at, everything=request.query.all, limit=keys.MAX_SHOWN)
    if isinstance(listed, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, listed)
    return ApiAnswer(KeyList(keys=[_shown(request, record) for record in listed]))


def revoke_key(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """End an admin key for good."""
    administration, actor, key_id = request.administration, request.actor, request.path["id"]
    ended = keys.revoke(administration, actor, key_id, request.at)
    if isinstance(ended, Refused):
        is_unknown = ended.refusals[0].field == "id"
        return ApiProblem.of_refusal(HTTPStatus.NOT_FOUND if is_unknown else HTTPStatus.FORBIDDEN, ended)
    if ended.revoked_at is None:
        ended = replace(ended, revoked_at=request.at, revoked_by=actor.name)
    return ApiAnswer(_shown(request, ended))


def _shown(request: ApiRequest, record: AdminKeyRecord) -> KeyAnswer:
    return KeyAnswer(**keys.key_metadata(record, request.at, request.configuration.settings.roles))


OPERATIONS = (
    ApiOperation("listKeys", "GET", "/keys", "List admin keys", list_keys, KeyList, needs=Operation.READ_KEYS, query=KeyQuery),
    ApiOperation(
        "revokeKey",
        "POST",
        "/keys/{id}/revoke",
        "Revoke an admin key for good",
        revoke_key,
        KeyAnswer,
        needs=Operation.REVOKE_KEY,
    ),
)
