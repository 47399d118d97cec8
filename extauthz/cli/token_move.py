"""`extauthz token export` and `import`: tokens from one store to another, as digests; nobody gets a new secret."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store.records import TokenFilter
from extauthz.adapters.store.rules import MAX_ACTOR
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_json, yes_option
from extauthz.cli.session import Session, as_option
from extauthz.cli.terminal import echo
from extauthz.core.act_as import address
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord, fingerprint, latest_expiry
from extauthz.issuing import PERMISSIONS, Order, refusals

MAX_IMPORT = 100_000
_PAGE = 1000
_TEXTS = ("id", "description", "permission", "created_by", "pepper_id", "pepper_fingerprint", "digest")
_NAMES = {"scope": "scopes", "expires": "expires_at"}
_TIMES = ("created_at", "expires_at")
_ID = re.compile(r"[0-9A-Za-z]{12}").fullmatch
_DIGEST = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{16})?").fullmatch


@click.command("export")
@configuration.option
@as_option
@click.option("--permission", type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@json_option
def export(config_file: Path, email: str | None, permission: str | None, *, as_json: bool) -> None:
    """Write the active tokens as JSON lines.

    They are for `token import` on another store with the same peppers, and hold digests, no secrets.

    Example: extauthz token export > tokens.jsonl
    """
    session = Session(config_file, email)
    session.require_super_admin("the export of digests")
    wanted = TokenFilter(permission=AuthType(permission.upper()) if permission else None, active_at=now())
    with session.store() as store:
        fingerprints = store.pepper_fingerprints()
        after = None
        while batch := store.page(wanted, after, _PAGE):
            for token in batch:
                echo(json.dumps(_written(token, fingerprints[token.pepper_id]), sort_keys=True))
            after = (batch[-1].created_at, batch[-1].id)


@click.command("import")
@configuration.option
@as_option
@click.argument("file", type=click.File("r", encoding="utf-8"))
@yes_option
@json_option
def import_tokens(config_file: Path, email: str | None, file: Any, *, yes: bool, as_json: bool) -> None:
    """Take over what `token export` wrote.

    All or none; the secrets of these tokens stay good. Known ids are refused, and those that may not come back.

    Example: extauthz token import tokens.jsonl --yes
    """
    session = Session(config_file, email)
    at = now()
    with configuration.explained():
        peppers = {name: fingerprint(pepper) for name, pepper in session.loaded.peppers(os.environ).items()}
    records: dict[str, TokenRecord] = {}
    wrong: list[str] = []
    for number, line in _lines(file):
        try:
            record = _read(line)
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
            continue
        found = list(_refusals(session, record, line, peppers, at))
        if record.id in records:
            found.append(("id", f"token {record.id} stands in a line above"))
        wrong += [f"line {number}: {field}: {message}" for field, message in found]
        records[record.id] = record
    if wrong:
        raise click.ClickException("no token was imported\n" + "\n".join(f"  {told}" for told in wrong))
    if not records:
        raise click.ClickException("no token was imported: the file is empty")
    confirm(f"Import {len(records)} tokens?", yes=yes)
    with session.store(create=True) as store:
        session.peppers(store)
        store.add_many(list(records.values()), peppers, session.change())
    if as_json:
        write_json({"imported": list(records)})
    else:
        echo(f"{len(records)} tokens were imported.")


def _written(token: TokenRecord, pepper_fingerprint: str) -> dict[str, Any]:
    names = ("id", "description", "user", "created_at", "created_by", "expires_at", "pepper_id")
    return {name: getattr(token, name) for name in names} | {
        "permission": token.permission.value,
        "scopes": sorted(token.scopes),
        "digest": token.digest.hex(),
        "pepper_fingerprint": pepper_fingerprint,
    }


def _lines(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, text in enumerate(file, 1):
            if number > MAX_IMPORT:
                raise click.ClickException(f"FILE: more than {MAX_IMPORT} lines: split the file")
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            yield number, line if isinstance(line, dict) else {}
    except UnicodeDecodeError as error:
        raise click.ClickException("FILE: not UTF-8: write it with 'extauthz token export'") from error


def _read(line: dict[str, Any]) -> TokenRecord:
    """Read one line of an export; raise ValueError that names the field."""
    for name in (*_TEXTS, *_TIMES, "scopes", "user"):
        if name not in line:
            raise ValueError(f"{name}: missing: write the file with 'extauthz token export'")
    for name in _TEXTS:
        if not isinstance(line[name], str):
            raise ValueError(f"{name}: not a text")
    for name in _TIMES:
        if type(line[name]) is not int or not 0 < line[name] < 2**40:
            raise ValueError(f"{name}: not a time in whole seconds")
    if not isinstance(line["scopes"], list) or not all(isinstance(name, str) for name in line["scopes"]):
        raise ValueError("scopes: not a list of texts")
    if line["user"] is not None and not isinstance(line["user"], str):
        raise ValueError("user: not a text")
    if not line["created_by"].isprintable() or len(line["created_by"]) > MAX_ACTOR:
        raise ValueError(f"created_by: write at most {MAX_ACTOR} printable characters")
    if not _ID(line["id"]):
        raise ValueError("id: not 12 letters and digits")
    if not _DIGEST(line["digest"]):
        raise ValueError("digest: not 64 or 80 hex digits")
    if line["permission"] not in PERMISSIONS:
        raise ValueError("permission: write GLOBAL, USER or ANONYMOUS")
    return TokenRecord(
        id=line["id"],
        description=line["description"],
        permission=AuthType(line["permission"]),
        user=line["user"],
        scopes=frozenset(line["scopes"]),
        created_at=line["created_at"],
        created_by=line["created_by"],
        expires_at=line["expires_at"],
        pepper_id=line["pepper_id"],
        digest=bytes.fromhex(line["digest"]),
    )


def _refusals(
    session: Session, record: TokenRecord, line: dict[str, Any], peppers: dict[str, str], at: int
) -> Iterator[tuple[str, str]]:
    order = Order(
        description=record.description,
        permission=record.permission,
        scopes=record.scopes,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        user=record.user,
    )
    yield from ((_NAMES.get(field, field), message) for field, message in refusals(order, session.rules))
    if record.user is not None and record.user != address(record.user):
        yield "user", "write the address in lower case"
    refusal = session.refusal(record.permission)
    if refusal:
        yield "permission", refusal
    latest = latest_expiry(record)
    if latest is not None and record.expires_at > latest:
        yield "expires_at", "later than the digest of the token allows: it would not verify"
    if record.created_at > at:
        yield "created_at", "lies ahead"
    if record.expires_at <= at:
        yield "expires_at", "the token has expired"
    if record.pepper_id not in peppers:
        yield "pepper_id", f"tokens.peppers does not list {record.pepper_id!r}: the token cannot be verified without it"
    elif peppers[record.pepper_id] != line["pepper_fingerprint"]:
        yield "pepper_fingerprint", f"the pepper {record.pepper_id!r} of this configuration is another one"
