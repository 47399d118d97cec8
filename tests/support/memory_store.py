"""A token store in memory: for tests, and for trying a configuration without a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from threading import RLock
from typing import Any

from extauthz.adapters.store import chain as audit_chain
from extauthz.adapters.store.idempotency import KEPT, EarlierRequest, IdempotencyKey
from extauthz.adapters.store.records import (
    AuditExport,
    AuditKey,
    AuditRow,
    Change,
    Position,
    Restored,
    Revocation,
    Sort,
    StoredToken,
    StoreState,
    TokenFilter,
)
from extauthz.adapters.store.rows import REVISION
from extauthz.adapters.store.rules import (
    MAX_USED_FROM,
    MAX_WHY,
    RETENTION,
    audit_key,
    check_expected,
    check_fingerprint,
    check_rotation,
    check_text,
    has_tombstone,
    in_use,
    meets,
)
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError
from extauthz.ports import RESOLUTION, FeedBatch, Use

_EVERYTHING = TokenFilter()
_SHORT_LIVED = AuditKey("memory", bytes(32))


class MemoryTokenStore:
    """Behaves like the stores on a database; nothing outlives the process."""

    name = "memory"

    def __init__(self, *, audit: AuditKey | None = _SHORT_LIVED) -> None:
        """Start empty."""
        self.audit = audit
        self._lock = RLock()
        self._records: dict[str, TokenRecord] = {}
        self._more: dict[str, dict[str, Any]] = {}
        self._uses: dict[str, tuple[int, str]] = {}
        self._peppers: dict[str, str] = {}
        self._tombstones: set[str] = set()
        self._requests: dict[bytes, EarlierRequest] = {}
        self._feed: list[tuple[int, str, int]] = []
        self._epoch = self._head = self._changes = 0
        self._audit: list[AuditRow] = []

    def close(self) -> None:
        """Do nothing."""

    def migrate(self) -> str:
        """Return the newest schema, which this store has from the beginning."""
        return REVISION

    revision = migrate

    def backup(self, path: Path) -> tuple[int, str]:
        """Refuse: there is nothing to copy."""
        raise StoreError(f"{path}: a store in memory cannot be saved")

    def status(self, now: int) -> StoreState:
        """Count the tokens and tell how far feed and audit are."""
        with self._lock:
            found = list(self._records.values())
            active = [token for token in found if token.revoked_at is None and token.expires_at > now]
            revoked = sum(token.revoked_at is not None for token in found)
            needed = {name: sum(token.pepper_id == name for token in active) for name in sorted(self._peppers)}
            return StoreState(
                revision=self.revision(),
                kind="memory",
                active=len(active),
                expired=len(found) - revoked - len(active),
                revoked=revoked,
                epoch=self._epoch,
                head=self._head,
                audit=self.audit_head(),
                peppers=needed,
            )

    # --- reading

    def find(self, token_id: str) -> TokenRecord | None:
        """Return the record of an id."""
        return self._records.get(token_id)

    def version(self) -> object:
        """Return the number of changes."""
        return self._changes

    def get(self, token_id: str) -> StoredToken | None:
        """Return one token."""
        with self._lock:
            record = self._records.get(token_id)
            if record is None:
                return None
            at, source = self._uses.get(token_id, (None, None))
            plain = {item.name: getattr(record, item.name) for item in fields(TokenRecord)}
            return StoredToken(**plain, **self._more.get(token_id, {}), last_used_at=at, last_used_from=source)

    def page(
        self,
        wanted: TokenFilter = _EVERYTHING,
        after: Position | None = None,
        limit: int = 100,
        *,
        before: Position | None = None,
        sort: Sort = Sort.NEWEST,
    ) -> list[StoredToken]:
        """Return the first tokens of a list, or those right after or before the position of one, in the order of the list."""
        found = [token for token in self.list_tokens() if meets(token, wanted)]
        found.sort(key=lambda token: self._place(sort.position(token)), reverse=sort.is_descending)
        if before is not None:
            return [token for token in found if self._stands(sort, sort.position(token), before)][-limit:]
        return [token for token in found if after is None or self._stands(sort, after, sort.position(token))][:limit]

    def _stands(self, sort: Sort, first: Position, second: Position) -> bool:
        """Return whether one position is before another one."""
        one, other = self._place(first), self._place(second)
        return one > other if sort.is_descending else one < other

    def _place(self, position: Position) -> tuple[bool, int, str]:
        at, token_id = position
        if at is not None:
            return True, at, token_id
        return False, self._records[token_id].created_at if token_id in self._records else 0, token_id

    def list_tokens(self) -> list[StoredToken]:
        """Return all tokens, the newest first."""
        with self._lock:
            found = [token for token in map(self.get, self._records) if token is not None]
        return sorted(found, key=lambda token: (token.created_at, token.id), reverse=True)

    def pepper_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each pepper that a token was made with."""
        return dict(self._peppers)

    def read_feed(self, after: int) -> FeedBatch:
        """Return what changed after a position."""
        with self._lock:
            oldest = self._feed[0][0] if self._feed else self._head + 1
            later = tuple(row[:2] for row in self._feed if row[0] > after)
            return FeedBatch(self._epoch, self._head, oldest, later, self.audit_head())

    def read_ids(self, after: str, limit: int) -> list[str]:
        """Return the next ids of tokens behind one, in their order."""
        with self._lock:
            return sorted(token_id for token_id in self._records if token_id > after)[:limit]

    # --- changes

    def add(self, new: TokenRecord, pepper_fingerprint: str, change: Change | None = None) -> None:
        """Insert a token; who made it and when is in the record, unless a change says where from."""
        self.add_many([new], {new.pepper_id: pepper_fingerprint}, change or Change(new.created_at, new.created_by))

    def add_many(
        self,
        new: Sequence[TokenRecord],
        pepper_fingerprints: Mapping[str, str],
        change: Change,
        *,
        idempotency: IdempotencyKey | None = None,
    ) -> EarlierRequest | None:
        """Insert all these tokens or none; of a key that was used before, return the request that used it."""
        with self._changing(change) as told:
            earlier = self._requests.get(idempotency.digest) if idempotency is not None else None
            if earlier is not None and earlier.at > change.at - KEPT:
                return earlier
            self._add(told, new, pepper_fingerprints)
            if idempotency is not None:
                self._requests[idempotency.digest] = EarlierRequest(new[0].id, idempotency.request, change.at)
            return None

    def revoke(
        self,
        ids: Iterable[str],
        why: str | None = None,
        change: Change | None = None,
        *,
        chain: bool = False,
        expected: StoredToken | None = None,
        at: int = 0,
        by: str = "",
    ) -> tuple[str, ...]:
        """Revoke tokens, with `chain` also their predecessors and successors; return the ids that were not revoked before.

        A test may write one id, and `at` and `by` instead of a change.
        """
        change = change or Change(at, by)
        with self._changing(change) as told:
            check_text("why", why, MAX_WHY)
            check_expected(None if expected is None else self.get(expected.id), expected)
            known = list(dict.fromkeys(filter(self._records.get, [ids] if isinstance(ids, str) else ids)))
            while chain and (further := sorted({link for token_id in known for link in self._links(token_id)} - set(known))):
                known += further
            return self._revoke(told, [Revocation(token_id, change.at, change.actor, why) for token_id in known])

    def revoke_user(self, user: str, why: str | None, change: Change) -> tuple[str, ...]:
        """Revoke every token of a user; return their ids."""
        with self._lock:
            return self.revoke([token.id for token in reversed(self.page(TokenFilter(user=user), limit=2**63))], why, change)

    def rotate(
        self,
        token_id: str,
        successor: TokenRecord,
        expires_at: int,
        pepper_fingerprint: str,
        change: Change,
        *,
        expected: StoredToken | None = None,
    ) -> StoredToken:
        """Add the successor of a token and bring the token's expiry forward; return the token as it is then."""
        with self._changing(change) as told:
            check_expected(self.get(token_id), expected)
            token = check_rotation(self.get(token_id), token_id, successor, change.at)
            self._add(told, [successor], {successor.pepper_id: pepper_fingerprint}, rotated_from=token_id)
            earlier = min(token.expires_at, expires_at)
            self._records[token_id] = replace(self._records[token_id], expires_at=earlier)
            self._more.setdefault(token_id, {})["rotated_to"] = successor.id
            after = {"expires_at": earlier, "rotated_to": successor.id}
            told.append((audit_chain.ROTATED, token_id, {"expires_at": token.expires_at, "rotated_to": None}, after))
            return replace(token, expires_at=earlier, rotated_to=successor.id)

    async def record_usage(self, uses: Mapping[str, Use]) -> int:
        """Keep what is later than what is known; return how many were kept."""
        with self._lock:
            kept = {
                token_id: (at, place[:MAX_USED_FROM])
                for token_id, (at, place) in uses.items()
                if token_id in self._records and (token_id not in self._uses or at > self._uses[token_id][0] + RESOLUTION)
            }
            self._uses |= kept
            return len(kept)

    def accept_restore(self, export: AuditExport, change: Change) -> Restored:
        """Do again what an exported audit tells, and begin a new epoch of the feed."""
        with self._changing(change) as told:
            before = {"epoch": self._epoch, "head": self._head}
            self._epoch, self._head = max(self._epoch, export.epoch) + 1, max(self._head, export.head) + 1
            after: dict[str, Any] = {"epoch": self._epoch, "head": self._head, "audit": export.audit}
            records = self._records
            expiries = {key: at for key, at in export.expiries.items() if key in records and at < records[key].expires_at}
            for token_id, at in expiries.items():
                told.append((audit_chain.EXPIRY, token_id, {"expires_at": records[token_id].expires_at}, {"expires_at": at}))
                records[token_id] = replace(records[token_id], expires_at=at)
            revoked = self._revoke(told, export.revocations)
            tombstones = []
            for item in export.revocations:
                if item.token_id not in records and item.token_id not in self._tombstones:
                    self._tombstones.add(item.token_id)
                    tombstones.append(item.token_id)
                    told.append((audit_chain.TOMBSTONE, item.token_id, None, item.facts))
            counted = {"revoked": len(revoked), "tombstones": len(tombstones), "expiries": len(expiries)}
            told.append((audit_chain.RESTORE, None, before, after | counted))
            return Restored(revoked, tuple(tombstones), tuple(expiries), self._epoch, self._head + sum(counted.values()))

    # --- audit

    def audit_page(self, after: int = 0, limit: int = 100) -> list[AuditRow]:
        """Return the rows of the audit behind a number."""
        return self._audit[after : after + limit]

    def audit_head(self) -> tuple[int, str]:
        """Return number and MAC of the last row of the audit; 0 before the first."""
        number, mac = self._audit_head()
        return number, mac.hex()

    def verify_audit(self, keys: Mapping[str, bytes], head: tuple[int, str] | None = None) -> int | None:
        """Return the number of the first row of the audit that is not what was written, None when all are."""
        return audit_chain.first_broken(list(self._audit), keys, head)

    def export_audit(self, after: int = 0) -> Iterator[str]:
        """Yield the audit as JSON lines; the last one tells the state of the store."""
        yield from map(audit_chain.line, self._audit[after:])
        yield audit_chain.last_line(self.audit_head(), self._epoch, self._head)

    @contextmanager
    def _changing(self, change: Change) -> Iterator[list[audit_chain.Note]]:
        """Collect what a change tells of; it writes to feed and audit at the end, or nothing at all when it is refused."""
        with self._lock:
            key = audit_key(change, self.audit)
            told: list[audit_chain.Note] = []
            yield told
            self._audit += audit_chain.append(self._audit_head(), change, key, told)
            changed = [note[1] for note in told if note[1] is not None]
            self._feed += [(number, token_id, change.at) for number, token_id in enumerate(changed, self._head + 1)]
            self._head += len(changed)
            self._changes += bool(told)
            while self._feed and self._feed[0][2] < change.at - RETENTION:
                del self._feed[0]

    def _audit_head(self) -> tuple[int, bytes]:
        return (self._audit[-1].number, self._audit[-1].mac) if self._audit else (0, audit_chain.START)

    def _links(self, token_id: str) -> Iterator[str]:
        return (link for name, link in self._more.get(token_id, {}).items() if name in ("rotated_from", "rotated_to"))

    def _add(
        self, told: list[audit_chain.Note], new: Sequence[TokenRecord], fingerprints: Mapping[str, str], **origin: str
    ) -> None:
        seen = set(self._records)
        for record in new:
            if record.id in seen:
                raise in_use(record.id)
            if record.id in self._tombstones:
                raise has_tombstone(record.id)
            check_fingerprint(record.pepper_id, self._peppers.get(record.pepper_id), fingerprints.get(record.pepper_id))
            seen.add(record.id)
        for record in new:
            self._peppers[record.pepper_id] = fingerprints[record.pepper_id]
            self._records[record.id] = record
            self._more[record.id] = dict(origin)
            told.append((audit_chain.CREATED, record.id, None, audit_chain.facts(record, **origin)))

    def _revoke(self, told: list[audit_chain.Note], revocations: Iterable[Revocation]) -> tuple[str, ...]:
        done = []
        for item in revocations:
            record = self._records.get(item.token_id)
            if record is None or record.revoked_at is not None:
                continue
            self._records[item.token_id] = replace(record, revoked_at=item.at, revoked_by=item.by)
            self._more.setdefault(item.token_id, {})["revoked_why"] = item.why
            told.append((audit_chain.REVOKED, item.token_id, dict.fromkeys(item.facts), item.facts))
            done.append(item.token_id)
        return tuple(done)
