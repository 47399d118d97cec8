"""What a parent and its workers say to each other: JSON lines over a socket that only the two of them hold."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from extauthz.adapters.decision_log.ring import FoundDecisions
from extauthz.config.saved_settings import Saved, SavedSettings
from extauthz.core.model import Reason
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.telemetry.metric_table import Exemplar, Histogram, Samples, Value

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one message: a configuration with thousands of routes, written in base64."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The first request: serve at the address of this index, from what the parent read; answered by Serving or Failed."""

    index: int
    log_decisions: bool
    file: Path
    files: Mapping[Path, bytes] = field(repr=False)
    saved: Saved | None = None


@dataclass(frozen=True, slots=True)
class Prepare:
    """Build the parts of another configuration."""

    file: Path
    files: Mapping[Path, bytes] = field(repr=False)
    saved: Saved | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Serve what was prepared."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Let go of what was prepared."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the files of logs anew."""


@dataclass(frozen=True, slots=True)
class Report:
    """Report the state; answered by State."""


@dataclass(frozen=True, slots=True)
class FindDecisions:
    """Report recent decisions whose fields have the `wanted` values; answered by FoundDecisions."""

    wanted: Mapping[str, str]
    limit: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class StartRecording:
    """Record requests, so many and for so many seconds at most, whose decisions have the `wanted` values."""

    recording: str
    wanted: Mapping[str, str]
    seconds: float
    number: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class TakeRecorded:
    """Hand out what was recorded since the last time; answered by Recorded."""

    recording: str


@dataclass(frozen=True, slots=True)
class EndRecording:
    """Record no more."""

    recording: str


@dataclass(frozen=True, slots=True)
class Drain:
    """End, beside siblings that go on."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """End as soon as a successor serves."""


@dataclass(frozen=True, slots=True)
class Hurry:
    """End the drain."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The answer to Begin, once checks are answered."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of the request was done, and why."""

    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The request was done."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer to TakeRecorded: requests as they are written to a file, how many were left out, and whether there are no more."""

    requests: list[dict[str, Any]]
    left_out: int = 0
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """How a sidecar, or one worker of it, is: figures, what has to be in order, what is worth knowing, and who serves."""

    samples: Samples = field(default_factory=dict)
    readiness: Mapping[str, bool] = field(default_factory=dict)
    details: tuple[Condition, ...] = ()
    transport: str | None = None


Inspection = FindDecisions | StartRecording | TakeRecorded | EndRecording
"""What an operator wants to know of checks."""
Command = Inspection | Begin | Prepare | Commit | Discard | Reopen | Report | Drain | HandOver | Hurry
Answer = Serving | Failed | Done | State | FoundDecisions | Recorded
Message = Command | Answer
_REASONS: Mapping[str, Reason] = {reason.value: reason for reason in Reason}
_TYPES: Mapping[str, type[Message]] = {each.__name__: each for each in (*get_args(Command), *get_args(Answer))}


class Channel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take both directions of a stream."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connection: socket.socket) -> Channel:
        """Talk over one of a pair of sockets, which is closed with the channel."""
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE)
        return cls(reader, writer)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Return both ends."""
        return socket.socketpair()

    async def send(self, message: Message, number: int = 0) -> None:
        """Send one message; an answer has the number of its request.

        Raises OSError when the other side has gone, and ValueError for a message that it would not read.
        """
        line = json.dumps(_pack(message) | {"id": number}).encode("ascii") + b"\n"
        if len(line) > MAX_LINE:
            raise ValueError(f"a message of {len(line)} bytes is larger than the {MAX_LINE} that a worker reads")
        self._writer.write(line)
        await self._writer.drain()

    async def receive(self) -> tuple[int, Message] | None:
        """Return the next message with its number, or None when the other side has gone, or sent what is no message."""
        try:
            line = await self._reader.readline()
            return _unpack(json.loads(line)) if line.endswith(b"\n") else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def close(self) -> None:
        """Say nothing more."""
        self._writer.close()


def _pack(message: Message) -> dict[str, Any]:
    packed: dict[str, Any] = {"type": type(message).__name__}
    for each in fields(message):
        value = getattr(message, each.name)
        packed[each.name] = _PACKED[each.name][0](value) if each.name in _PACKED else value
    return packed


def _unpack(packed: dict[str, Any]) -> tuple[int, Message]:
    number, kind = int(packed.pop("id")), _TYPES[packed.pop("type")]
    return number, kind(**{name: _PACKED[name][1](value) if name in _PACKED else value for name, value in packed.items()})


def _pack_files(contents: Mapping[Path, bytes]) -> dict[str, str]:
    return {str(path): base64.b64encode(content).decode("ascii") for path, content in contents.items()}


def _unpack_files(packed: Mapping[str, str]) -> dict[Path, bytes]:
    return {Path(path): base64.b64decode(content, validate=True) for path, content in packed.items()}


def _pack_saved(saved: Saved | None) -> dict[str, Any] | str | None:
    return {"version": saved.version, "body": dict(saved.body)} if isinstance(saved, SavedSettings) else saved


def _unpack_saved(packed: dict[str, Any] | str | None) -> Saved | None:
    match packed:
        case None:
            return None
        case str():
            return _REASONS[packed]
    return SavedSettings(int(packed["version"]), dict(packed["body"]))


def _pack_conditions(conditions: tuple[Condition, ...]) -> list[dict[str, Any]]:
    return [asdict(condition) for condition in conditions]


def _unpack_conditions(packed: list[dict[str, Any]]) -> tuple[Condition, ...]:
    return tuple(Condition(ConditionKey(one.pop("key")), **one) for one in packed)


def packed_samples(samples: Samples) -> list[list[Any]]:
    """Write samples as lists."""
    return [
        [name, list(labels), {**asdict(value)} if isinstance(value, Histogram) else value]
        for (name, labels), value in samples.items()
    ]


def unpacked_samples(packed: list[list[Any]]) -> Samples:
    """Read what `packed_samples` wrote."""
    return {(name, tuple(labels)): _unpacked_value(value) for name, labels, value in packed}


def _unpacked_value(value: float | dict[str, Any]) -> Value:
    if not isinstance(value, dict):
        return value
    exemplars: dict[int, Exemplar] = {int(index): (str(one), two, three) for index, (one, two, three) in value["exemplars"].items()}
    return Histogram(value["counts"], value["total"], exemplars)


_PACKED: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "file": (str, Path),
    "files": (_pack_files, _unpack_files),
    "saved": (_pack_saved, _unpack_saved),
    "samples": (packed_samples, unpacked_samples),
    "details": (_pack_conditions, _unpack_conditions),
}
"""How the fields travel that JSON does not know, by name: there, and back."""
