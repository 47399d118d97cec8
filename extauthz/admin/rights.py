"""Who may do what to issued tokens: the one place of rights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from extauthz.adapters.store.records import Change
from extauthz.admin.outcomes import Refusal, Refused
from extauthz.core.model import AuthType

PERMISSIONS = (AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS)
"""What the permission of an issued token can be."""


class Role(StrEnum):
    """What somebody is to the token store; a viewer reads everything and changes nothing."""

    VIEWER = "viewer"
    ADMIN = "admin"
    SUPER_ADMIN = "super_admin"


class Operation(StrEnum):
    """What can be done, in words that a refusal begins with."""

    READ = "reading"
    CREATE = "creating a token"
    ROTATE = "rotating a token"
    REVOKE = "revoking a token"
    IMPORT = "importing a token"
    EXPORT_DIGESTS = "the export of digests"
    ACCEPT_RESTORE = "accepting a restore"
    MIGRATE = "migrating the store"
    BACK_UP = "a backup of the store"
    READ_KEYS = "looking at admin keys"
    CREATE_KEY = "creating an admin key"
    REVOKE_KEY = "revoking an admin key"
    SESSIONS = "looking at other people's sessions"
    ACCOUNTS = "managing the console's accounts"
    SETTINGS = "changing the OAuth settings"


KEY_ACTOR = "key:"
"""What the name of an actor begins with who has an admin key."""

SYSTEM_ACTOR = "os:"
"""What the name of an actor begins with who is a user of the machine, and has the configuration and the peppers at hand."""

_OF_TOKENS = frozenset({Operation.CREATE, Operation.ROTATE, Operation.REVOKE, Operation.IMPORT})


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever administers: a system user like `os:ana` or an address, the role, and from which host or browser."""

    name: str
    role: Role
    source: str = ""

    def change(self, at: int) -> Change:
        """Return what the audit tells of a change that this actor makes at a time, in seconds since the epoch."""
        return Change(at, self.name, self.source)


def role_of(
    email: str, admins: Collection[str], super_admins: Collection[str], viewers: Collection[str] = frozenset()
) -> Role | None:
    """Return the highest role of an address, None without one; all addresses are in lower case."""
    if email in super_admins:
        return Role.SUPER_ADMIN
    if email in admins:
        return Role.ADMIN
    return Role.VIEWER if email in viewers else None


def lower(one: Role, other: Role) -> Role:
    """Return the role that allows less."""
    return min(one, other, key=tuple(Role).index)


def may(actor: Actor, operation: Operation, permission: AuthType | None = None) -> bool:
    """Tell whether an actor may do something; what is done to tokens depends on their `permission`, None for any at all."""
    if operation is Operation.READ:
        return True
    if operation not in _OF_TOKENS or permission is AuthType.GLOBAL:
        return actor.role is Role.SUPER_ADMIN
    return (permission is None or permission in PERMISSIONS) and actor.role in (Role.ADMIN, Role.SUPER_ADMIN)


def refusal(actor: Actor, operation: Operation, permission: AuthType | None = None) -> Refusal | None:
    """Return why an actor may not do something, None when it is allowed; the field is `permission` or `actor`."""
    if may(actor, operation, permission):
        return None
    if permission is not None and permission not in PERMISSIONS:
        return Refusal("permission", f"write {', '.join(PERMISSIONS[:-1])} or {PERMISSIONS[-1]}")
    field, what, needed = "actor", operation.value, Role.SUPER_ADMIN
    if operation in _OF_TOKENS and permission is AuthType.GLOBAL:
        field, what = "permission", AuthType.GLOBAL.value
    elif operation in _OF_TOKENS:
        needed = Role.ADMIN
    # No change of `roles` makes a key do more than it was made for.
    hint = "use another admin key" if actor.name.startswith(KEY_ACTOR) else f"see roles.{needed}s"
    return Refusal(field, f"{what} needs {_NAMES[needed]}, and {actor.name} is {_NAMES[actor.role]}: {hint}")


def forbidden(actor: Actor, operation: Operation, permission: AuthType | None = None) -> Refused | None:
    """Refuse what an actor may not do, None when it is allowed."""
    wrong = refusal(actor, operation, permission)
    return Refused((wrong,)) if wrong else None


_NAMES = {Role.VIEWER: "a viewer", Role.ADMIN: "an admin", Role.SUPER_ADMIN: "a super admin"}
