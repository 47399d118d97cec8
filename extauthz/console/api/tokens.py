"""Client tokens: list, create, read, rotate and revoke them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from http import HTTPStatus

from pydantic import TypeAdapter

from extauthz.adapters.store.records import CHANGEABLE, StoredToken
from extauthz.admin import revocation, tokens
from extauthz.admin.idempotency import FIELD as IDEMPOTENCY_FIELD
from extauthz.admin.idempotency import MAX_KEY
from extauthz.admin.metadata import token_metadata
from extauthz.admin.outcomes import EXPECTED, Refused
from extauthz.admin.rights import Operation, forbidden
from extauthz.admin.token_requests import TokenRequest
from extauthz.admin.tokens import Repeated
from extauthz.console.api.operations import (
    BASE,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    ApiAnswer,
    ApiOperation,
    ApiRequest,
    HeaderParameter,
    is_conditional,
    is_expected,
)
from extauthz.console.api.problems import ApiProblem, FieldError
from extauthz.console.api.token_models import (
    TOKEN_BODY,
    CreatedToken,
    RevocationBody,
    RevokedTokens,
    RotatedToken,
    RotationBody,
    TokenAnswer,
    TokenList,
    TokenQuery,
)
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError

_KEY = HeaderParameter(
    IDEMPOTENCY_KEY,
    "A text of your own, another one for each token: sent again within a day, the same request makes no second token.",
    f"^[!-~]{{1,{MAX_KEY}}}$",
)
_MATCH = HeaderParameter(
    IF_MATCH,
    "The ETag of the token that you read: the request does nothing if it was changed since.",
)
_QUERY_PLACES = {"text": "query/text", "limit": "query/limit"}
_BODY_PLACES = {name: f"body/{name}" for name in ("description", "permission", "user", "scopes")} | {
    "expires_at": "body/expires_in",
    IDEMPOTENCY_FIELD: _KEY.place,
}
_TAGGED = ("id", *CHANGEABLE)


def list_tokens(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return a page of tokens."""
    administration, query = request.administration, request.query
    if query.after is not None and query.before is not None:
        return ApiProblem(HTTPStatus.CONFLICT, "a page is after a cursor or before one: write one of the two")
    search = query.search().without_secret(administration.prefixes)
    if isinstance(search, Refused):
        return ApiProblem.of_refusal(HTTPStatus.UNPROCESSABLE_ENTITY, search, _QUERY_PLACES)
    cursor = query.after or query.before
    page = tokens.list_tokens(administration, request.actor, search, request.at, sort=query.sort, cursor=cursor, limit=query.limit)
    if isinstance(page, Refused):
        is_cursor = page.refusals[0].field == "cursor"
        status = HTTPStatus.CONFLICT if is_cursor else HTTPStatus.UNPROCESSABLE_ENTITY
        return ApiProblem.of_refusal(status, page, _QUERY_PLACES | {"cursor": "query/after" if query.after else "query/before"})
    rows = [_shown(token, request.at) for token in page.tokens]
    cursors = {"next": ("after", page.after), "prev": ("before", page.before)}
    # What was typed may have been a whole token: the links have its id.
    text = {"text": search.text} if query.text else {}
    return ApiAnswer(
        TokenList(tokens=rows, after=page.after, before=page.before),
        pages={name: {**text, parameter: cursor} for name, (parameter, cursor) in cursors.items() if cursor is not None},
    )


def create_token(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Make a token and tell its secret."""
    body, actor = request.body, request.actor
    permission = AuthType(body.permission)
    if refused := forbidden(actor, Operation.CREATE, permission):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, refused, _BODY_PLACES)
    asked = TokenRequest(
        description=body.description,
        permission=permission,
        scopes=frozenset(body.scopes),
        created_at=request.at,
        created_by=actor.name,
        expires_at=request.at + body.expires_in,
        user=getattr(body, "user", None),
    )
    key = request.headers.get(IDEMPOTENCY_KEY)
    match tokens.create(request.administration, actor, [asked], request.at, idempotency_key=key):
        case Refused(refusals) as refused:
            is_used = refusals[0].field == IDEMPOTENCY_FIELD
            status = HTTPStatus.CONFLICT if is_used else HTTPStatus.UNPROCESSABLE_ENTITY
            return ApiProblem.of_refusal(status, refused, _BODY_PLACES)
        case Repeated(token_id):
            return _repeated(token_id)
        case (new,):
            content = CreatedToken(secret=new.text.text, token=_shown(new.record, request.at))
            return ApiAnswer(content, {"Location": _place(new.record.id), "ETag": _etag(new.record)})
        case several:
            raise AssertionError(f"{len(several)} tokens were made by one request")


def read_token(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return what is known of a token."""
    token = _token(request)
    return token if isinstance(token, ApiProblem) else ApiAnswer(_shown(token, request.at), {"ETag": _etag(token)})


def rotate_token(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Make the successor of a token and tell its secret."""
    old = _token(request, Operation.ROTATE)
    if isinstance(old, ApiProblem):
        return old
    expected = _expected(request, old)
    outcome = tokens.rotate(
        request.administration, request.actor, old.id, request.at, overlap=request.body.overlap, expected=expected
    )
    if isinstance(outcome, Refused):
        if outcome.refusals[0].field == EXPECTED:
            return _changed()
        # Neither a state nor a rule is mended by another request: so both are a conflict.
        return ApiProblem.of_refusal(HTTPStatus.CONFLICT, outcome)
    new = _now(request, outcome.new.record)
    content = RotatedToken(secret=outcome.new.text.text, token=_shown(new, request.at), previous=_shown(outcome.old, request.at))
    return ApiAnswer(content, {"Location": _place(new.id), "ETag": _etag(new)})


def revoke_token(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """End a token for good."""
    token = _token(request, Operation.REVOKE)
    if isinstance(token, ApiProblem):
        return token
    administration, body = request.administration, request.body
    outcome = revocation.revoke(
        administration,
        request.actor,
        [token.id],
        request.at,
        why=body.why,
        linked=body.chain,
        expected=_expected(request, token),
    )
    if isinstance(outcome, Refused):
        if outcome.refusals[0].field == EXPECTED:
            return _changed()
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, outcome)
    now = _now(request, token)
    return ApiAnswer(RevokedTokens(token=_shown(now, request.at), revoked=list(outcome.ids)), {"ETag": _etag(now)})


def _now(request: ApiRequest, token: TokenRecord) -> TokenRecord:
    """Return a token that was just changed as the store has it; what was done is told also when it cannot be read again."""
    with suppress(StoreError):
        return request.administration.store.get(token.id) or token
    return token


def _token(request: ApiRequest, change: Operation | None = None) -> StoredToken | ApiProblem:
    """Return the token of the path, if it may be changed so, and is what the sender believes that it is."""
    token = tokens.show(request.administration, request.actor, request.path["id"])
    if isinstance(token, Refused):
        return ApiProblem(HTTPStatus.NOT_FOUND, "no token has this id")
    if change is not None and (refused := forbidden(request.actor, change, token.permission)):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, refused)
    return token if is_expected(request, _etag(token)) else _changed()


def _expected(request: ApiRequest, token: StoredToken) -> StoredToken | None:
    """Return what the token must still be when it is changed, None for a request that takes it as it is."""
    return token if is_conditional(request) else None


def _changed() -> ApiProblem:
    return ApiProblem(
        HTTPStatus.PRECONDITION_FAILED,
        "the token was changed since it was read: read it again",
        (FieldError(_MATCH.place, "this is not the ETag of the token now"),),
    )


def _shown(record: TokenRecord, at: int) -> TokenAnswer:
    return TokenAnswer(**token_metadata(record, at))


def _etag(record: TokenRecord) -> str:
    """Name the state of a token: what admins do to it, and not that it was used or that time goes by."""
    state = [getattr(record, name, None) for name in _TAGGED]
    return f'"{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]}"'


def _place(token_id: str) -> str:
    return f"{BASE}/tokens/{token_id}"


def _repeated(token_id: str) -> ApiProblem:
    return ApiProblem(
        HTTPStatus.CONFLICT,
        f"this request came before and made token {token_id}, whose secret was told then and never again; "
        "if nobody has it, revoke that token and make another with a new key",
        (FieldError(_KEY.place, "it was used for this request before"),),
        headers={"Location": _place(token_id)},
        more={"token_id": token_id},
    )


OPERATIONS = (
    ApiOperation(
        "listTokens",
        "GET",
        "/tokens",
        "List client tokens",
        list_tokens,
        TokenList,
        query=TokenQuery,
        answer_headers=("Link",),
        problems=(HTTPStatus.CONFLICT,),
    ),
    ApiOperation(
        "createToken",
        "POST",
        "/tokens",
        "Create a client token",
        create_token,
        CreatedToken,
        needs=Operation.CREATE,
        status=HTTPStatus.CREATED,
        body=TOKEN_BODY,
        headers=(_KEY,),
        answer_headers=("ETag", "Location"),
        problems=(HTTPStatus.CONFLICT,),
    ),
    ApiOperation("readToken", "GET", "/tokens/{id}", "Read a client token", read_token, TokenAnswer, answer_headers=("ETag",)),
    ApiOperation(
        "rotateToken",
        "POST",
        "/tokens/{id}/rotate",
        "Replace a client token by a successor with the same rights and length of life",
        rotate_token,
        RotatedToken,
        needs=Operation.ROTATE,
        status=HTTPStatus.CREATED,
        body=TypeAdapter(RotationBody),
        headers=(_MATCH,),
        answer_headers=("ETag", "Location"),
        problems=(HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
    ),
    ApiOperation(
        "revokeToken",
        "POST",
        "/tokens/{id}/revoke",
        "Revoke a client token for good",
        revoke_token,
        RevokedTokens,
        needs=Operation.REVOKE,
        body=TypeAdapter(RevocationBody),
        headers=(_MATCH,),
        answer_headers=("ETag",),
        problems=(HTTPStatus.PRECONDITION_FAILED,),
    ),
)
