"""What a parent and its workers say to each other comes out as it went in, and what is no message ends the conversation."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest

from extauthz.adapters.decision_log.ring import FoundDecisions
from extauthz.config.saved_settings import SavedSettings
from extauthz.core.model import Reason
from extauthz.serve import messages as control
from extauthz.serve.messages import Channel, Message
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.telemetry.metric_table import Histogram

FILES = {Path("/etc/extauthz.yaml"): b"version: 1\n\xff", Path("/etc/routes.yaml"): b""}
SAMPLES = {("a", ("x", "y")): 1.5, ("b", ()): math.inf, ("c", ("z",)): Histogram([1.0, 2.0], 3.0, {1: ("ab", 0.1, 7.0)})}
MESSAGES: list[Message] = [
    control.Begin(3, True, Path("/etc/extauthz.yaml"), FILES),
    control.Prepare(Path("/etc/extauthz.yaml"), FILES),
    control.Begin(0, False, Path("/etc/extauthz.yaml"), FILES, SavedSettings(7, {"client_ids": ["ü"], "enabled": False})),
    control.Prepare(Path("/etc/extauthz.yaml"), FILES, SavedSettings(0)),
    control.Prepare(Path("/etc/extauthz.yaml"), FILES, Reason.STORE_STALE),
    control.Commit(),
    control.Discard(),
    control.Reopen(),
    control.Report(),
    control.FindDecisions({"reason": "allowed", "user": "ü@acme.com"}, 10, 1024),
    control.StartRecording("r", {}, 60.0, 100, 1024),
    control.TakeRecorded("r"),
    control.EndRecording("r"),
    FoundDecisions([{"decision_id": "0", "status": 200}], is_cut=True),
    control.Recorded([{"version": 1, "headers": {}}], 3, is_over=True),
    control.Drain(),
    control.HandOver(),
    control.Hurry(),
    control.Serving(),
    control.Failed("no"),
    control.Done(),
    control.State(
        SAMPLES,
        {"serving": True},
        (Condition(ConditionKey.ISSUER_KEYS, met=False, issuer="https://acme.okta.com", worker=1),),
        "nghttp2",
    ),
]


def test_every_message_is_here() -> None:
    assert {type(message).__name__ for message in MESSAGES} == set(control._TYPES)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    ours, theirs = [await Channel.over(end) for end in Channel.pair()]
    await ours.send(message, 7)
    await ours.send(message)
    assert [await theirs.receive(), await theirs.receive()] == [(7, message), (0, message)]
    ours.close()
    assert await theirs.receive() is None
    theirs.close()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"{}\n",
        b"[]\n",
        b"1\n",
        b"\xff\n",
        b'{"id": 1}\n',
        b'{"id": "x", "type": "Done"}\n',
        b'{"id": 1, "type": "Undone"}\n',
        b'{"id": 1, "type": "Done", "more": 1}\n',
        b'{"id": 1, "type": "Failed"}\n',
        json.dumps({"id": 1, "type": "Prepare", "file": "a", "files": {"a": "%"}}).encode() + b"\n",
        json.dumps({"id": 1, "type": "State", "samples": [[1]]}).encode() + b"\n",
    ],
)
async def test_what_is_no_message_ends_the_conversation(line: bytes) -> None:
    ours, theirs = Channel.pair()
    channel = await Channel.over(ours)
    await asyncio.to_thread(theirs.sendall, line)
    theirs.close()
    assert await channel.receive() is None
    channel.close()
