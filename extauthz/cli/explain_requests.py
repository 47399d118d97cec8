"""The request that `extauthz explain` is given: as for curl, as a CheckRequest, as a line of the decision log, or by its id."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.errors import CurlError, LineError

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration
    from extauthz.core.model import Identity, Reason, Request
    from extauthz.tools.live import OpsListener
    from extauthz.tools.log_lines import LogLine

MAX_INPUT = 4 * 1024 * 1024
"""Bytes of a CheckRequest or a pasted line: what is larger is none."""


@dataclass(frozen=True, slots=True)
class ExplainedRequest:
    """What is to be explained: a request, what is known of its token by whoever described it, and of a log, its reason."""

    request: Request | None
    evidence: Identity | Reason | None = None
    is_described: bool = False
    logged: Reason | None = None
    moment: float | None = None
    secrets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def asked_of(
    loaded: Configuration,
    *,
    line: str | None,
    check_file: str | None,
    log_file: str | None,
    decision_id: str | None,
    ops: Callable[[], OpsListener],
    request: tuple[str, ...],
) -> ExplainedRequest:
    """Read the request from where the flags say."""
    sources = {
        "--curl": line,
        "--check-request": check_file,
        "--log-line": log_file,
        "--live": decision_id,
        "the request": request or None,
    }
    named = [name for name, value in sources.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)}: give one of them")
    if check_file is not None:
        return _of_check_request(check_file)
    if log_file is not None:
        return _of_log(loaded, _one_line(_read(log_file, "--log-line")))
    if decision_id is not None:
        from extauthz.tools.log_lines import decision_id_of

        if not decision_id_of(decision_id):
            raise click.UsageError("--live: a decision id has 32 hex digits in small letters")
        return _live(loaded, decision_id, ops())
    if line is None and not request and sys.stdin.isatty():
        raise click.UsageError("no request: write it as for curl, or name one with --curl, --check-request, --log-line or --live")
    return _of_curl(line, request)


def _of_curl(line: str | None, request: tuple[str, ...]) -> ExplainedRequest:
    from extauthz.tools.curl import read, read_line

    try:
        if request:
            found = read(request)
        else:
            found = read_line(line if line not in (None, "-") else _read("-", "--curl").decode("utf-8", "surrogateescape"))
    except CurlError as error:
        raise click.UsageError(str(error)) from error
    return ExplainedRequest(found.request, secrets=found.secrets, notes=found.notes)


def _of_check_request(file: str) -> ExplainedRequest:
    from extauthz.adapters.envoy.check_files import request_in

    try:
        return ExplainedRequest(request_in(_read(file, "--check-request")))
    except ValueError as error:
        raise click.UsageError(f"--check-request: {error}") from error


def _one_line(data: bytes) -> str:
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) != 1:
        raise click.UsageError(
            f"--log-line: {len(lines)} lines in place of one: choose it, for instance by its decision_id with grep"
        )
    return lines[0]


def _of_log(loaded: Configuration, line: str | LogLine) -> ExplainedRequest:
    from extauthz.tools.described import described
    from extauthz.tools.log_lines import line_in

    try:
        told = described(loaded, line_in(line) if isinstance(line, str) else line)
    except LineError as error:
        raise click.UsageError(f"{'--log-line' if isinstance(line, str) else '--live'}: {error}") from error
    return ExplainedRequest(
        told.request, told.evidence, is_described=True, logged=told.reason, moment=told.moment, notes=told.notes
    )


def _live(loaded: Configuration, decision_id: str, place: OpsListener) -> ExplainedRequest:
    from extauthz.errors import LiveError
    from extauthz.tools.live import recent_decisions
    from extauthz.tools.log_lines import read_record

    try:
        found = recent_decisions(place, {"id": decision_id, "limit": "1"})
    except LiveError as error:
        raise click.ClickException(str(error)) from error
    lines = [line for line in map(read_record, found.decisions) if line.decision_id == decision_id]
    if not lines:
        raise click.ClickException(
            f"{place.name} does not have this decision: it keeps the newest ones only, and the decision log has the others"
        )
    return _of_log(loaded, lines[0])


def _read(file: str, flag: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_INPUT + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(MAX_INPUT + 1)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{flag}: the file cannot be read: {getattr(error, 'strerror', None) or 'not a name'}") from error
    if len(data) > MAX_INPUT:
        raise click.UsageError(f"{flag}: larger than {MAX_INPUT // 1024 // 1024} MiB")
    return data


def described_by(loaded: Configuration, asked: ExplainedRequest, who: str) -> ExplainedRequest:
    """Let the caller that the flag describes send the request, in place of its token."""
    from extauthz.core.credentials import AUTHORIZATION
    from extauthz.errors import CallerError
    from extauthz.tools.callers import caller
    from extauthz.tools.calls import sent_by

    try:
        described = caller(who, loaded.settings.scopes, loaded.providers)
    except CallerError as error:
        raise click.UsageError(f"--as: {error}") from error
    request = asked.request
    if request is None:
        return replace(asked, evidence=described.evidence, is_described=True)
    notes = (
        *asked.notes,
        *(("The token of the request was not looked at, because of --as.",) if AUTHORIZATION in request.headers else ()),
    )
    secrets = (*asked.secrets, request.headers.get(AUTHORIZATION, ""))
    return replace(
        asked,
        request=sent_by(loaded.policy, request, described),
        evidence=described.evidence,
        is_described=True,
        notes=notes,
        secrets=secrets,
    )
