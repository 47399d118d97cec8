"""Client tokens as the API takes and shows them."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from extauthz.adapters.store.records import Sort
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.console.api.values import (
    LONGEST,
    Answer,
    Body,
    Description,
    Moment,
    Printable,
    ScopeName,
    Scopes,
    Time,
    Truth,
    UserAddress,
    Whole,
    Why,
)
from extauthz.core.model import AuthType

MAX_LISTED = 1000
CURSOR = r"-([0-9]{1,16}|never)-[0-9A-Za-z]{1,12}-[0-9a-f]{12}$"
Permission = Literal["GLOBAL", "USER", "ANONYMOUS"]


class TokenQuery(Body):
    """Which tokens to list; without `status` those of every status. Lengths of time are in seconds."""

    text: Annotated[Printable, Field(description="A part of the description, in any case, or an id.")] = ""
    status: Annotated[TokenStatus | None, Field(description="What they are now.")] = None
    permission: Annotated[Permission | None, Field(description="Those of this kind.")] = None
    scope: Annotated[ScopeName | None, Field(description="Those that hold this scope.")] = None
    user: Annotated[UserAddress | None, Field(description="Those that act for this user.")] = None
    created_by: Annotated[Printable | None, Field(description="Those that this actor made, by the whole name.")] = None
    pepper_id: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Those made with this pepper.")
    ] = None
    expires_after: Annotated[Moment | None, Field(description="Those that end after this moment.")] = None
    expires_before: Annotated[Moment | None, Field(description="Those that end before this moment.")] = None
    expiring_within: Annotated[
        int | None, Whole(1, LONGEST, is_text=True), Field(description="Those that end within so many seconds.")
    ] = None
    unused_for: Annotated[
        int | None,
        Whole(1, LONGEST, is_text=True),
        Field(description="Those that are older than so many seconds and were not used in them."),
    ] = None
    never_used: Annotated[Truth, Field(description="Only those that were never used.")] = False
    sort: Annotated[Sort, Field(description="What stands first.")] = Sort.NEWEST
    limit: Annotated[int, Whole(1, MAX_LISTED, is_text=True), Field(description="Tokens of a page.")] = 100
    after: Annotated[str | None, Field(pattern=f"^after{CURSOR}", description="`after` of the page before.")] = None
    before: Annotated[str | None, Field(pattern=f"^before{CURSOR}", description="`before` of the page behind.")] = None

    def search(self) -> TokenSearch:
        """Return what is looked for."""
        names = {item.name for item in fields(TokenSearch)} - {"permission"}
        permission = AuthType(self.permission) if self.permission else None
        return TokenSearch(permission=permission, **{name: getattr(self, name) for name in names})


class _TokenBody(Body):
    description: Annotated[Description, Field(description="What it is for.")]
    scopes: Annotated[Scopes, Field(description="Some of `scopes` of the configuration.")]
    expires_in: Annotated[int, Whole(1, LONGEST), Field(description="Seconds that it lasts, at most `tokens.max_lifetime`.")]


class GlobalTokenBody(_TokenBody):
    """A token that acts for whom its bearer names."""

    permission: Annotated[Literal["GLOBAL"], Field(description="Whom it acts for; GLOBAL needs a key of a super admin.")]


class UserTokenBody(_TokenBody):
    """A token that acts for one user."""

    permission: Annotated[Literal["USER"], Field(description="Whom it acts for.")]
    user: Annotated[UserAddress, Field(description="The address of the user.")]


class AnonymousTokenBody(_TokenBody):
    """A token that acts for nobody."""

    permission: Annotated[Literal["ANONYMOUS"], Field(description="Whom it acts for.")]


TokenBody = GlobalTokenBody | UserTokenBody | AnonymousTokenBody
TOKEN_BODY: TypeAdapter[TokenBody] = TypeAdapter(Annotated[TokenBody, Field(discriminator="permission")])


class RotationBody(Body):
    """How long both tokens are good."""

    overlap: Annotated[int, Whole(0, LONGEST), Field(description="Seconds until the old token ends; 0 ends it now.")]


class RevocationBody(Body):
    """Why a token ends, for the audit."""

    why: Annotated[Why | None, Field(description="The reason.")] = None
    chain: Annotated[bool, Field(strict=True, description="Also those that it was rotated from and to.")] = False


class TokenAnswer(Answer):
    """What is known of a token; its secret is known to nobody. A use is told by the quarter of an hour."""

    id: str
    description: str
    permission: Permission
    user: str | None
    scopes: list[str]
    status: Literal["active", "expired", "revoked"]
    created_at: Time
    created_by: str
    expires_at: Time
    pepper_id: str
    revoked_at: Time | None
    revoked_by: str | None
    revoked_why: str | None
    rotated_from: str | None
    rotated_to: str | None
    last_used_at: Time | None
    last_used_from: str | None


class TokenList(Answer):
    """A page of tokens, and the cursors of the pages behind and before it."""

    tokens: list[TokenAnswer]
    after: str | None
    before: str | None


class CreatedToken(Answer):
    """A new token; its secret is told here and never again."""

    secret: str
    token: TokenAnswer


class RotatedToken(CreatedToken):
    """The successor of a token, and that token as it is now."""

    previous: TokenAnswer


class RevokedTokens(Answer):
    """The token as it is now, and the ids of those that were revoked by this request: none if it was revoked before."""

    token: TokenAnswer
    revoked: list[str]
