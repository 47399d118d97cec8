"""A decision that a sidecar remembers, as a request that can be explained: as far as its record tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from extauthz.config.loader import Configuration
from extauthz.console.recent_denials import Record
from extauthz.core.model import Identity, Reason, Request
from extauthz.tools.calls import Call, decided_call, request_of
from extauthz.tools.log_lines import LogLine, Undecidable, read_line
from extauthz.tools.replay_senders import Sender, Senders

OTHER_HOST = "other.invalid"
"""Stands for a host that no route file names."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """What a record tells of a request: `configuration` has other rules of act-as where the record leaves open whom they concern.

    `notes` say what it leaves open, where nothing that it may mean comes to its own reason now.
    """

    configuration: Configuration
    request: Request
    evidence: Identity | Reason | None
    notes: tuple[str, ...]


def logged_request(
    record: Record,
    configuration: Configuration,
    *,
    hosts: Callable[[str], tuple[str, ...]],
    scopes_of: Callable[[str], frozenset[str] | None],
) -> LoggedRequest | str:
    """Return the request of a record, or why it does not tell one.

    `hosts` returns those of a route by its name, `scopes_of` the scopes of an issued token by its id, None where it is not known.
    """
    line = read_line(json.dumps(dict(record)).encode())
    if not isinstance(line, LogLine) or line.reason is None:
        return Undecidable.REASON_UNKNOWN.hint
    if not line.method or not line.path:
        return Undecidable.REQUEST_ABSENT.hint
    if line.is_cut:
        return Undecidable.CUT.hint
    policy = configuration.policy
    host = next(iter(hosts(line.route or "")), OTHER_HOST if policy.hosts else "")
    readings = list(Senders(policy, configuration.providers, configuration.settings.scopes, scopes_of).readings(line))

    def under(sender: Sender) -> Configuration:
        return configuration if sender.act_as is None else replace(configuration, policy=replace(policy, act_as=sender.act_as))

    def call(sender: Sender) -> Call:
        return Call(line.method or "", f"{line.path}{sender.query}", host, sender.headers, sender.caller)

    def reason(sender: Sender) -> Reason:
        return decided_call(under(sender).policy, call(sender), 0.0).reason

    reasons = [reason(sender) for _, sender in readings]
    # A record leaves open who called, but not what became of it.
    chosen = next((place for place, found in enumerate(reasons) if found is line.reason), 0)
    others = () if reasons[chosen] is line.reason else zip(readings, reasons, strict=True)
    notes = dict.fromkeys(unknown.hint for (unknown, _), found in others if unknown is not None and found is not reasons[chosen])
    sender = readings[chosen][1]
    return LoggedRequest(under(sender), request_of(under(sender).policy, call(sender)), sender.caller.evidence, tuple(notes))
