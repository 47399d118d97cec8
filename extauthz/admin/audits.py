"""The audit as a whole: check it, and take it out of the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extauthz.adapters.store.records import AuditRow
from extauthz.admin.administration import Administration, audit_keys
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden

if TYPE_CHECKING:
    from extauthz.adapters.store.replay import Advance, Checked

ONE_VERIFICATION = threading.Lock()
"""For services: each reads all rows, and takes a thread that others need too."""


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What was seen of the audit; `row` is the first broken one where it is there, and whether its pepper is not listed."""

    checked: Checked
    row: AuditRow | None = None
    is_without_pepper: bool = False


def verify(
    administration: Administration,
    actor: Actor,
    *,
    head: tuple[int, str] | None = None,
    advance: Advance = lambda done, total: None,
) -> AuditCheck | Refused:
    """Check every row against the chain, and every token against the rows; `head` was noted outside of the store."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    keys = audit_keys(administration.read_peppers())
    checked = administration.store.check_audit(keys, head, advance)
    if checked.first_broken is None:
        return AuditCheck(checked)
    row = next(iter(administration.store.audit_page(checked.first_broken - 1, 1)), None)
    if row is None or row.number != checked.first_broken:
        return AuditCheck(checked)
    return AuditCheck(checked, row, row.pepper_id not in keys)


def export(administration: Administration, actor: Actor, *, after: int = 0) -> Iterator[str] | Refused:
    """Return the audit as JSON lines; the last one tells the state of the store."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    return administration.store.export_audit(after)
