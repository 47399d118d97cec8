"""How a store is read and changed, for what admins do; it loads no SQL, which commands that only print their help do without."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlalchemy as sa

    from extauthz.adapters.store.ledger import Ledger
    from extauthz.adapters.store.records import Change


class Transactions(Protocol):
    """What a store does one change in; each raises StoreError."""

    def reading(self) -> AbstractContextManager[sa.Connection]: ...
    def writing(self) -> AbstractContextManager[sa.Connection]: ...
    def changing(self, change: Change) -> AbstractContextManager[Ledger]: ...
