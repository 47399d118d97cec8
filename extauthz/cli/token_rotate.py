"""`extauthz token rotate`: a successor for one token, or for all that were made with a pepper."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from extauthz.admin import peppers, tokens
from extauthz.admin.administration import Administration
from extauthz.admin.metadata import token_metadata, utc
from extauthz.admin.outcomes import Refused
from extauthz.admin.peppers import Candidate, NotRotated
from extauthz.admin.times import length
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_json, yes_option
from extauthz.cli.rendering import Column, Fit, progress, write_table
from extauthz.cli.session import Session, TokenId, as_option, unwrap
from extauthz.cli.terminal import echo, showing_secrets
from extauthz.cli.token_create import facts_of, write_one
from extauthz.cli.token_requests import FLAGS
from extauthz.config.wording import counted
from extauthz.process import private_files

_COLUMNS = (
    Column("id"),
    Column("ends", need=1),
    Column("would end", need=2),
    Column("permission", need=3, fit=Fit.WRAP, least=13),
    Column("description", need=4, fit=Fit.WRAP),
)


@click.command("rotate")
@configuration.option
@as_option
@click.argument("token_id", metavar="[ID]", required=False, type=TokenId())
@click.option(
    "--overlap", default="24h", show_default=True, help="How long both tokens are good, like 24h; 0s ends the old one now."
)
@click.option("--pepper", "pepper_id", metavar="ID", help="With --all instead of a token: those made with the pepper of this id.")
@click.option("--all", "everything", is_flag=True, help="With --pepper: all of them, each in a change of its own.")
@click.option("--dry-run", is_flag=True, help="With --all: list them, and what stands against some of them; change nothing.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --all: write the successors into this new file, which only you may read, as JSON lines.",
)
@yes_option
@json_option
def rotate(config_file: Path, email: str | None, token_id: str | None, overlap: str, *, as_json: bool, **flags: Any) -> None:
    """Replace a token by a successor, or all tokens of a pepper.

    The successor has the same rights and length of life; the old token ends after the overlap.

    \b
    Example: extauthz token rotate 4fK2pQ9sXb1Z --overlap 24h
             extauthz token rotate --pepper p1 --all --overlap 7d --dry-run
             extauthz token rotate --pepper p1 --all --overlap 7d --output rotated.jsonl
    """
    _check_flags(token_id, **flags)
    try:
        seconds = length(overlap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overlap") from error
    session = Session(config_file, email)
    if token_id is not None:
        _rotate_one(session, token_id, seconds, as_json=as_json)
        return
    with session.administration() as administration:
        many = _Many(session, administration, flags["pepper_id"], seconds, overlap, as_json=as_json)
        if flags["dry_run"]:
            many.preview()
        else:
            many.rotate(flags["output"], yes=flags["yes"])


def _check_flags(
    token_id: str | None, *, pepper_id: str | None, everything: bool, dry_run: bool, output: Path | None, yes: bool
) -> None:
    if token_id is None and not (everything and pepper_id is not None):
        raise click.UsageError("name the ID of a token, or a pepper and all of its tokens: --pepper ID --all")
    if token_id is not None:
        given = {"--pepper": pepper_id, "--all": everything, "--dry-run": dry_run, "--output": output, "--yes": yes}
        for flag, value in given.items():
            if value not in (None, False):
                raise click.UsageError(f"{flag} does not go with the ID of a token")


def _rotate_one(session: Session, token_id: str, overlap: int, *, as_json: bool) -> None:
    at = now()
    with showing_secrets() as stored:
        with session.administration() as administration:
            rotation = _rotated(tokens.rotate(administration, session.actor, token_id, at, overlap=overlap), token_id)
            stored.append(rotation.new.record.id)
        if as_json:
            write_json(facts_of(rotation.new, at) | {"rotated_from": token_id, "old": token_metadata(rotation.old, at)})
            return
        write_one(rotation.new, at)
        end = utc(rotation.old.expires_at)
        echo(f"\nIt follows token {token_id}, which ends at {end}: give the new one to whoever uses it.")


def _rotated(outcome: tokens.Rotation | Refused, token_id: str) -> tokens.Rotation:
    match outcome:
        case Refused(refusals) if refusals[0].field.startswith(tokens.SUCCESSOR):
            lines = "\n".join(f"  {line}" for line in _against(outcome))
            raise click.ClickException(f"token {token_id} was not rotated, its successor would not be allowed\n{lines}")
        case Refused(refusals) if refusals[0].field != "id":
            return unwrap(outcome, f"token {token_id} was not rotated")
        case _:
            return unwrap(outcome)


def _against(refused: Refused) -> Iterator[str]:
    """Yield what stands against a token, with the flag of what its successor may not have."""
    for each in refused.refusals:
        field = each.field.removeprefix(tokens.SUCCESSOR)
        yield f"{FLAGS.get(field, field)}: {each.message}" if field != each.field else each.message


class _Many:
    """All tokens of a pepper."""

    def __init__(
        self, session: Session, administration: Administration, pepper_id: str, overlap: int, shown: str, *, as_json: bool
    ) -> None:
        self._session = session
        self._administration = administration
        self._pepper_id = pepper_id
        self._overlap = overlap
        self._shown = shown
        self._as_json = as_json
        self._at = now()

    def preview(self) -> None:
        """List what a rotation would do."""
        selected = list(self._candidates())
        wrong = {each.token.id: "; ".join(_against(each.refused)) for each in selected if each.refused is not None}
        right = [token_metadata(each.token, self._at) for each in selected if each.refused is None]
        ends = {each.token.id: min(each.token.expires_at, self._at + self._overlap) for each in selected}
        if self._as_json:
            rows = [row | {"would_end_at": utc(ends[row["id"]])} for row in right]
            write_json({"would_rotate": rows, "would_not": [{"id": name, "reason": reason} for name, reason in wrong.items()]})
        else:
            if right:
                write_table(_COLUMNS, (_row(row, utc(ends[row["id"]])) for row in right))
            self._tell_wrong(wrong, "would not be rotated")
            echo(f"{counted(len(right), 'token')} would be rotated. Nothing was changed.")
        if wrong:
            raise click.exceptions.Exit(1)

    def rotate(self, output: Path | None, *, yes: bool) -> None:
        """Rotate them, and show each successor as soon as it is stored."""
        wrong, count = {}, 0
        for each in self._candidates():
            if each.refused is None:
                count += 1
            else:
                wrong[each.token.id] = "; ".join(_against(each.refused))
        if count:
            ends = f"{'it ends' if count == 1 else 'they end'} {self._shown} from now at the latest"
            confirm(f"Rotate {counted(count, 'token')} of the pepper {self._pepper_id}, so that {ends}?", yes=yes)
            wrong = self._rotate(count, output)
        else:
            echo(f"No token of the pepper {self._pepper_id} is to be rotated.", err=True)
        self._tell_wrong(wrong, "was not rotated")
        if wrong:
            raise click.exceptions.Exit(1)

    def _rotate(self, count: int, output: Path | None) -> dict[str, str]:
        wrong: dict[str, str] = {}
        done = 0
        outcomes = unwrap(
            peppers.rotate_all(self._administration, self._session.actor, self._pepper_id, self._at, overlap=self._overlap)
        )
        try:
            with (
                _written(output, as_json=self._as_json) as write,
                showing_secrets() as stored,
                progress(counted(count, "token"), count, prints=output is None) as bar,
            ):
                for outcome in outcomes:
                    if isinstance(outcome, NotRotated):
                        wrong[outcome.token.id] = "; ".join(_against(outcome.refused))
                        continue
                    new, old = outcome.new, outcome.old
                    stored.append(new.record.id)
                    write(facts_of(new, self._at) | {"rotated_from": old.id, "old_ends_at": utc(old.expires_at)})
                    stored.clear()
                    done += 1
                    bar.advance(bar.task_ids[0])
        finally:
            if done:
                whose = "" if output is None else f", whose successors are in {output}"
                left = "" if done + len(wrong) >= count else " Repeat the command to go on."
                echo(f"{counted(done, 'token')} rotated{whose}: give the new ones to whoever uses the old ones.{left}", err=True)
        return wrong

    def _candidates(self) -> Iterator[Candidate]:
        return unwrap(peppers.candidates(self._administration, self._session.actor, self._pepper_id, self._at))

    @staticmethod
    def _tell_wrong(wrong: dict[str, str], what: str) -> None:
        for name, reason in wrong.items():
            echo(f"Token {name} {what}: {reason}", err=True)


def _row(row: dict[str, Any], end: str | None) -> tuple[str | None, ...]:
    who = " ".join(filter(None, (row["permission"], row["user"])))
    return row["id"], row["expires_at"][:10], (end or "")[:16].replace("T", " "), who, row["description"]


@contextmanager
def _written(output: Path | None, *, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what writes one successor, so that it stays: into a new file, or to standard output."""
    if output is None:
        yield write_json if as_json else _print
        return
    try:
        descriptor = private_files.create(output)
    except FileExistsError:
        raise click.ClickException(f"{output} exists, and secrets are never overwritten: name another file") from None
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error
    with open(descriptor, "w", encoding="utf-8") as stream:

        def write(facts: dict[str, Any]) -> None:
            try:
                stream.write(json.dumps(facts) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            except OSError as error:
                raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error

        yield write


def _print(facts: dict[str, Any]) -> None:
    who = " ".join(filter(None, (facts["permission"], facts["user"])))
    echo(f"{facts['rotated_from']} → {facts['token']}  {who}  {facts['description']}")
