"""A page of tokens, in queries that stay quick in a large store, also where few tokens or none are found.

An index that has the order of the list is quickest where many tokens meet the filter: the page is full after some rows. Where few
do, it would fetch row after row, in the order of the index, all over the table. So a stretch of the index is read first, and when
the page is not full by then, the table is read as it lies and what meets the filter is sorted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store.database import Kind
from extauthz.adapters.store.folding import fold, others
from extauthz.adapters.store.records import Position, Sort, StoredToken, TokenFilter
from extauthz.adapters.store.schema import WITH_USES, stored, stored_tokens, token_usage, tokens

STRETCH = 40
"""Rows of an index that are read first, for each row of a page."""
_MAX_TEXT = 200
"""Characters of the longest description."""

_Clause = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class _Order:
    """An index to read tokens by, and which columns of a filter it answers; `scanned` is read where the index is not."""

    at: sa.ColumnElement[int]
    id: sa.ColumnElement[str]
    answers: frozenset[str]
    source: sa.FromClause = WITH_USES
    scanned: sa.FromClause = tokens


_AGE = _Order(tokens.c.created_at, tokens.c.id, frozenset({"created_at", "user"}))
_EXPIRY = _Order(tokens.c.expires_at, tokens.c.id, frozenset({"expires_at"}))
_USED = _Order(
    token_usage.c.last_used_at,
    token_usage.c.token_id,
    frozenset({"last_used_at"}),
    token_usage.join(tokens, tokens.c.id == token_usage.c.token_id),
    # No index has this text: tokens are read first, and a use is looked up only of those that meet the filter.
    tokens.join(token_usage, token_usage.c.token_id == tokens.c.id + ""),
)
_NEVER_USED = _Order(tokens.c.created_at, tokens.c.id, frozenset({"created_at", "user"}))


def page(
    connection: sa.Connection,
    kind: Kind,
    filters: TokenFilter,
    *,
    sort: Sort,
    after: Position | None,
    before: Position | None,
    limit: int,
) -> list[StoredToken]:
    """Return the first tokens of a list, or those right after or before a position, in the order of the list."""
    position = after if before is None else before
    texts = (filters.text, filters.scope, filters.user, filters.created_by, filters.pepper_id, position and position[1])
    if not all(text is None or text.isprintable() for text in texts):
        # No token has it, and not every database takes it in a query.
        return []
    if filters.text is not None and len(filters.text) > _MAX_TEXT:
        return []
    is_descending = sort.is_descending == (before is None)
    found: list[StoredToken] = []
    for order, start in _orders(sort, position, is_descending=is_descending):
        if len(found) < limit:
            query = _Query(kind, filters, order, start, is_descending)
            found += query.read(connection, limit - len(found))
    return found if before is None else found[::-1]


def _orders(sort: Sort, position: Position | None, *, is_descending: bool) -> Iterator[tuple[_Order, Position | None]]:
    """Yield the indexes to read one behind the other, and the position where to begin in each."""
    if sort in (Sort.NEWEST, Sort.OLDEST):
        yield _AGE, position
        return
    if sort in (Sort.EXPIRES_SOONEST, Sort.EXPIRES_LATEST):
        yield _EXPIRY, position
        return
    both = (_USED, _NEVER_USED) if is_descending else (_NEVER_USED, _USED)
    first = None if position is None else _NEVER_USED if position[0] is None else _USED
    if first in (None, both[0]):
        yield both[0], position
        yield both[1], None
    else:
        yield both[1], position


@dataclass(frozen=True, slots=True)
class _Query:
    """A list in one order, behind a position."""

    kind: Kind
    filters: TokenFilter
    order: _Order
    position: Position | None
    is_descending: bool

    def read(self, connection: sa.Connection, limit: int) -> list[StoredToken]:
        """Return the tokens by the shape of query that is quickest."""
        order = self.order
        start = self._start(connection)
        conditions = list(self._conditions(scanned=False))
        behind = [] if start is None else [self._behind(order.at, start)]
        in_order = stored_tokens(order.source).where(*(clause for _, clause in conditions), *behind)
        in_order = in_order.order_by(*self._sorted(order.at, order.id)).limit(limit)
        answered = [clause for name, clause in conditions if name in order.answers]
        if len(answered) == len(conditions):
            return _tokens(connection, in_order)
        stretch = sa.select(order.at, order.id).where(*answered, *behind).order_by(*self._sorted(order.at, order.id))
        end = connection.execute(stretch.offset(limit * STRETCH - 1).limit(1)).first()
        if end is None:
            return _tokens(connection, in_order)
        found = _tokens(connection, in_order.where(~self._behind(order.at, (end[0], end[1]))))
        return found if len(found) == limit else _tokens(connection, self._scan(start, limit))

    def _start(self, connection: sa.Connection) -> Position | None:
        """Return the position in terms of the index: tokens that were never used stand by their age."""
        if self.position is None or self.position[0] is not None:
            return self.position
        made = connection.scalar(sa.select(tokens.c.created_at).where(tokens.c.id == self.position[1]))
        return (0 if made is None else made), self.position[1]

    def _scan(self, start: Position | None, limit: int) -> sa.Select[Any]:
        # No index has this sum, which is the time itself; and only what is sorted is read, the rest of a page's tokens at last.
        order, at = self.order, self.order.at + 0
        behind = [] if start is None else [self._behind(at, start)]
        keys = (
            sa.select(order.id.label("id"), at.label("at"))
            .select_from(order.scanned)
            .where(*(clause for _, clause in self._conditions(scanned=True)), *behind)
            .order_by(*self._sorted(at, order.id))
            .limit(limit)
            .subquery()
        )
        found = keys.join(tokens, tokens.c.id == keys.c.id).outerjoin(token_usage, token_usage.c.token_id == tokens.c.id)
        return stored_tokens(found).order_by(*self._sorted(keys.c.at, keys.c.id))

    def _behind(self, at: sa.ColumnElement[int], position: Position) -> _Clause:
        key, bound = sa.tuple_(at, self.order.id), sa.tuple_(*position)
        return bound > key if self.is_descending else bound < key

    def _sorted(self, *columns: sa.ColumnElement[Any]) -> Sequence[sa.ColumnElement[Any]]:
        return [column.desc() if self.is_descending else column.asc() for column in columns]

    def _conditions(self, *, scanned: bool) -> Iterator[tuple[str, _Clause]]:
        """Yield the clauses, each with the column that an index would need to answer it."""
        filters = self.filters
        for name, value in (("pepper_id", filters.pepper_id), ("created_by", filters.created_by), ("user", filters.user)):
            if value is not None:
                yield name, tokens.c[name] == value
        if filters.permission is not None:
            yield "permission", tokens.c.permission == filters.permission.value
        if filters.scope is not None:
            # The column is a JSON list of texts; LIKE would read a name with "_" as a pattern.
            yield "scopes", _contains(self.kind, tokens.c.scopes, json.dumps(filters.scope))
        if filters.text is not None:
            yield "description", sa.or_(tokens.c.id == filters.text, _matches(self.kind, fold(filters.text)))
        if filters.revoked:
            yield "revoked_at", tokens.c.revoked_at.is_not(None)
        if filters.active_at is not None or filters.expired_at is not None:
            yield "revoked_at", tokens.c.revoked_at.is_(None)
        yield from (("expires_at", clause) for clause in self._expiry(scanned=scanned))
        yield from self._unused(scanned=scanned)

    def _expiry(self, *, scanned: bool) -> Iterator[_Clause]:
        filters = self.filters
        lower = [bound for bound in (filters.expires_after, filters.active_at) if bound is not None]
        column: sa.ColumnElement[int] = tokens.c.expires_at
        if scanned and not (lower and filters.expires_before is not None):
            # Half of all tokens may stand behind one bound; an index would fetch each of them on its own.
            column = column + 0
        for bound in lower:
            yield column > bound
        if filters.expires_before is not None:
            yield column < filters.expires_before
        if filters.expired_at is not None:
            yield column <= filters.expired_at

    def _unused(self, *, scanned: bool) -> Iterator[tuple[str, _Clause]]:
        since = self.filters.unused_since
        if since is not None:
            yield "created_at", (tokens.c.created_at + 0 if scanned else tokens.c.created_at) < since
        if self.order is _USED:
            if since is not None:
                yield "last_used_at", token_usage.c.last_used_at < since
            if self.filters.never_used:
                yield "last_used_at", sa.false()
        elif self.order is _NEVER_USED or self.filters.never_used:
            yield "token_id", self._not_used_since(None, scanned=scanned)
        elif since is not None:
            yield "token_id", self._not_used_since(since, scanned=scanned)

    def _not_used_since(self, since: int | None, *, scanned: bool) -> _Clause:
        uses = token_usage.alias("uses")
        if self.kind == "sqlite" and scanned:
            # Two keys that are read side by side take a fifth of the time of a look-up for each token.
            used = sa.select(uses.c.token_id)
            used = used if since is None else used.where(uses.c.last_used_at + 0 >= since)
            unused = sa.except_(sa.select(tokens.alias("every").c.id), used).order_by(sa.text("1")).subquery()
            return (tokens.c.id + "").in_(sa.select(unused.c.id))
        conditions = [uses.c.token_id == tokens.c.id]
        if since is not None:
            conditions.append(uses.c.last_used_at >= since)
        return ~sa.exists().where(*conditions)


def _tokens(connection: sa.Connection, query: sa.Select[Any]) -> list[StoredToken]:
    return [stored(row) for row in connection.execute(query)]


def _contains(kind: Kind, column: sa.ColumnElement[str], text: str) -> _Clause:
    return (sa.func.strpos if kind == "postgresql" else sa.func.instr)(column, text) > 0


def _matches(kind: Kind, folded: str) -> _Clause:
    """Tell whether a folded text is part of the description, in any case; databases themselves know that of ASCII alone."""
    cased = others(folded)
    if kind == "postgresql":
        lowered = sa.func.lower(sa.collate(tokens.c.description, "C"))
        if cased:
            pairs = [(other, letter) for letter, same in cased.items() for other in same]
            lowered = sa.func.translate(lowered, "".join(other for other, _ in pairs), "".join(letter for _, letter in pairs))
        return _contains(kind, lowered, folded)
    # LIKE is quickest, and knows the cases of ASCII; nothing of the text is a pattern.
    like = "".join("_" if letter in cased else f"\\{letter}" if letter in "%_\\" else letter for letter in folded)
    clause = tokens.c.description.like(f"%{like}%", escape="\\")
    return sa.and_(clause, tokens.c.description.op("GLOB")(f"*{_glob(folded, cased)}*")) if cased else clause


def _glob(folded: str, cased: dict[str, str]) -> str:
    letters = []
    for letter in folded:
        same = letter + (letter.upper() if letter.isascii() else cased.get(letter, ""))
        letters.append(f"[{same}]" if len(set(same)) > 1 or letter in "*?[" else letter)
    return "".join(letters)
