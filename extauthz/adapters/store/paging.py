"""A page of tokens, in queries that stay quick in a large store, also where few tokens or none are found.

An index that has the order of the list is quickest where many tokens meet the filter: the page is full after some rows. Where few
do, it would fetch row after row, in the order of the index, all over the table. So a stretch of the index is read first, and when
the page is not full by then, the table is read as it lies and what meets the filter is sorted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store.database import Kind
from extauthz.adapters.store.folding import fold, others
from extauthz.adapters.store.records import Position, Sort, StoredToken, TokenFilter
from extauthz.adapters.store.schema import WITH_USES, stored, stored_tokens, token_usage, tokens

STRETCH = 100
"""Rows of an index that are read first, for each row of a page."""
_MAX_TEXT = 200
"""Characters of the longest description."""

_Tokens = list[StoredToken]
_Clause = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """An index to read tokens by, and which columns of a filter it answers."""

    at: sa.ColumnElement[int]
    id: sa.ColumnElement[str]
    answers: frozenset[str]
    source: sa.FromClause = WITH_USES


@dataclass(frozen=True, slots=True, eq=False)
class _List:
    """A list: the indexes that have its order one behind the other, and what it is sorted by where the table itself is read."""

    indexes: tuple[_Index, ...]
    at: sa.ColumnElement[int]
    source: sa.FromClause = tokens


_NEVER = 2**62
"""What a token that was never used stands before the times of all uses."""

_BY_AGE = _Index(tokens.c.created_at, tokens.c.id, frozenset({"created_at", "user"}))
_BY_EXPIRY = _Index(tokens.c.expires_at, tokens.c.id, frozenset({"expires_at"}))
_BY_USE = _Index(
    token_usage.c.last_used_at,
    token_usage.c.token_id,
    frozenset({"last_used_at"}),
    token_usage.join(tokens, tokens.c.id == token_usage.c.token_id),
)
_NEVER_USED = _Index(tokens.c.created_at, tokens.c.id, frozenset({"created_at", "user"}))
# No index has these sums, which are the times themselves.
_AGE = _List((_BY_AGE,), tokens.c.created_at + 0)
_EXPIRY = _List((_BY_EXPIRY,), tokens.c.expires_at + 0)
_USE = _List((_BY_USE, _NEVER_USED), sa.func.coalesce(token_usage.c.last_used_at, tokens.c.created_at - _NEVER), WITH_USES)
_LISTS = {
    Sort.NEWEST: _AGE,
    Sort.OLDEST: _AGE,
    Sort.EXPIRES_SOONEST: _EXPIRY,
    Sort.EXPIRES_LATEST: _EXPIRY,
    Sort.RECENTLY_USED: _USE,
    Sort.LEAST_RECENTLY_USED: _USE,
}

_Start = tuple[int, str] | None


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
    query = _Query(kind, filters, _LISTS[sort], sort.is_descending == (before is None))
    found = query.read(connection, position, limit)
    return found if before is None else found[::-1]


@dataclass(frozen=True, slots=True)
class _Query:
    """A list in one direction."""

    kind: Kind
    filters: TokenFilter
    order: _List
    is_descending: bool

    def read(self, connection: sa.Connection, position: Position | None, limit: int) -> _Tokens:
        """Return the tokens behind a position, by the queries that are quickest."""
        start = None if position is None else _start(connection, position)
        found: _Tokens = []
        for index, begin in self._indexes(position, start):
            part = self._in_order(connection, index, begin, limit - len(found))
            if part is None:
                if start is not None and position is not None and position[0] is None:
                    start = start[0] - _NEVER, start[1]
                return _tokens(connection, self._scan(start, limit))
            found += part
            if len(found) == limit:
                break
        return found

    def _indexes(self, position: Position | None, start: _Start) -> Iterator[tuple[_Index, _Start]]:
        """Yield the indexes to read one behind the other, and where to begin in each."""
        indexes = self.order.indexes if self.is_descending else self.order.indexes[::-1]
        own = None if position is None or len(indexes) == 1 else _NEVER_USED if position[0] is None else _BY_USE
        if own in (None, indexes[0]):
            yield indexes[0], start
            yield from ((index, None) for index in indexes[1:])
        else:
            yield indexes[1], start

    def _in_order(self, connection: sa.Connection, index: _Index, start: _Start, limit: int) -> _Tokens | None:
        """Return tokens in the order of an index, None when a stretch of it is not enough."""
        conditions = list(self._conditions(index))
        behind = [] if start is None else [self._behind(index.at, index.id, start)]
        in_order = self._sorted(stored_tokens(index.source), index.at, index.id).limit(limit)
        in_order = in_order.where(*(clause for _, clause in conditions), *behind)
        answered = [clause for name, clause in conditions if name in index.answers]
        if len(answered) == len(conditions):
            return _tokens(connection, in_order)
        stretch = self._sorted(sa.select(index.at, index.id), index.at, index.id).where(*answered, *behind)
        end = connection.execute(stretch.offset(limit * STRETCH - 1).limit(1)).first()
        if end is None:
            return _tokens(connection, in_order)
        found = _tokens(connection, in_order.where(~self._behind(index.at, index.id, (end[0], end[1]))))
        return found if len(found) == limit else None

    def _scan(self, start: _Start, limit: int) -> sa.Select[Any]:
        # Only keys are sorted; the rest is read of the tokens of the page alone.
        at, token_id = self.order.at, tokens.c.id
        conditions = [clause for _, clause in self._conditions(None)]
        if start is not None:
            conditions.append(self._behind(at, token_id, start))
        keys = sa.select(token_id.label("id"), at.label("at")).select_from(self.order.source).where(*conditions)
        page_keys = self._sorted(keys, at, token_id).limit(limit).subquery()
        found = page_keys.join(tokens, tokens.c.id == page_keys.c.id).outerjoin(token_usage, token_usage.c.token_id == tokens.c.id)
        return self._sorted(stored_tokens(found), page_keys.c.at, page_keys.c.id)

    def _behind(self, at: sa.ColumnElement[int], token_id: sa.ColumnElement[str], start: tuple[int, str]) -> _Clause:
        key, bound = sa.tuple_(at, token_id), sa.tuple_(*start)
        return bound > key if self.is_descending else bound < key

    def _sorted(self, query: sa.Select[*tuple[Any, ...]], *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return query.order_by(*(column.desc() if self.is_descending else column.asc() for column in columns))

    def _conditions(self, index: _Index | None) -> Iterator[tuple[str, _Clause]]:
        """Yield the clauses for an index, or for the table, each with the column that an index would need to answer it."""
        filters = self.filters
        for name, value in (("pepper_id", filters.pepper_id), ("created_by", filters.created_by), ("user", filters.user)):
            if value is not None:
                yield name, tokens.c[name] == value
        if filters.permission is not None:
            yield "permission", tokens.c.permission == filters.permission.value
        if filters.scope is not None:
            # The column is a JSON list of texts; LIKE would read a name with "_" as a pattern.
            names = {filters.scope, filters.kept_scope or filters.scope}
            yield "scopes", sa.or_(*(_contains(self.kind, tokens.c.scopes, json.dumps(name)) for name in sorted(names)))
        if filters.text is not None:
            yield "description", sa.or_(tokens.c.id == filters.text, _matches(self.kind, fold(filters.text)))
        if filters.revoked:
            yield "revoked_at", tokens.c.revoked_at.is_not(None)
        if filters.active_at is not None or filters.expired_at is not None:
            yield "revoked_at", tokens.c.revoked_at.is_(None)
        yield from (("expires_at", clause) for clause in self._expiry(index))
        yield from self._unused(index)

    def _expiry(self, index: _Index | None) -> Iterator[_Clause]:
        filters = self.filters
        lower = [bound for bound in (filters.expires_after, filters.active_at) if bound is not None]
        column: sa.ColumnElement[int] = tokens.c.expires_at
        if index is None and not (lower and filters.expires_before is not None):
            # Half of all tokens may stand behind one bound; an index would fetch each of them on its own.
            column = column + 0
        for bound in lower:
            yield column > bound
        if filters.expires_before is not None:
            yield column < filters.expires_before
        if filters.expired_at is not None:
            yield column <= filters.expired_at

    def _unused(self, index: _Index | None) -> Iterator[tuple[str, _Clause]]:
        since, used_at = self.filters.unused_since, token_usage.c.last_used_at
        if since is not None:
            yield "created_at", (tokens.c.created_at + 0 if index is None else tokens.c.created_at) < since
        if index is _BY_USE:
            if since is not None:
                yield "last_used_at", used_at < since
            if self.filters.never_used:
                yield "last_used_at", sa.false()
        elif index is None and self.order is _USE:
            if since is not None:
                yield "last_used_at", sa.func.coalesce(used_at, tokens.c.created_at) < since
            if self.filters.never_used:
                yield "last_used_at", used_at.is_(None)
        elif index is _NEVER_USED or self.filters.never_used:
            yield "token_id", self._not_used_since(None, index)
        elif since is not None:
            yield "token_id", self._not_used_since(since, index)

    def _not_used_since(self, since: int | None, index: _Index | None) -> _Clause:
        uses = token_usage.alias("uses")
        filters = self.filters
        is_narrow = any(value is not None for value in (filters.text, filters.scope, filters.user, filters.created_by))
        if self.kind == "sqlite" and index is None and not is_narrow:
            # Two keys that are read side by side take a fifth of the time of a look-up for each of all tokens.
            used = sa.select(uses.c.token_id)
            used = used if since is None else used.where(uses.c.last_used_at + 0 >= since)
            unused = sa.except_(sa.select(tokens.alias("every").c.id), used).order_by(sa.text("1")).subquery()
            return (tokens.c.id + "").in_(sa.select(unused.c.id))
        conditions = [uses.c.token_id == tokens.c.id]
        if since is not None:
            conditions.append(uses.c.last_used_at >= since)
        return ~sa.exists().where(*conditions)


def _start(connection: sa.Connection, position: Position) -> tuple[int, str]:
    """Return where a position stands in its index: tokens that were never used stand by their age."""
    at, token_id = position
    if at is None:
        at = connection.scalar(sa.select(tokens.c.created_at).where(tokens.c.id == token_id)) or 0
    return at, token_id


def _tokens(connection: sa.Connection, query: sa.Select[Any]) -> _Tokens:
    return [stored(row) for row in connection.execute(query)]


def _contains(kind: Kind, column: sa.ColumnElement[str], text: str) -> _Clause:
    return (sa.func.strpos if kind == "postgresql" else sa.func.instr)(column, text) > 0


def _matches(kind: Kind, folded: str) -> _Clause:
    """Tell whether a folded text is part of the description, in any case; databases themselves know that of ASCII alone."""
    cased = others(folded)
    if kind == "postgresql":
        lowered = sa.func.lower(sa.collate(tokens.c.description, "C"))
        if not cased:
            return _contains(kind, lowered, folded)
        pairs = [(other, letter) for letter, same in cased.items() for other in same]
        lowered = sa.func.translate(lowered, "".join(other for other, _ in pairs), "".join(letter for _, letter in pairs))
        # Most descriptions are ASCII, and that is cheaper to see.
        is_ascii = sa.func.octet_length(tokens.c.description) == sa.func.length(tokens.c.description)
        return sa.and_(~is_ascii, _contains(kind, lowered, folded))
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
