"""The pages for operators that ask the processes which answer checks: recent decisions, and recordings."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from extauthz.adapters.decision_log.ring import FoundDecisions
from extauthz.config.loader import Configuration
from extauthz.serve.decision_query import MAX_LIMIT, USUAL_LIMIT, QueryError, read_query
from extauthz.serve.messages import EndRecording, FindDecisions, Inspection, Message, Recorded, StartRecording, TakeRecorded
from extauthz.serve.recording import LEASE, forbidden
from extauthz.transport.http.private_pages import TOO_MANY, Page, PrivatePage

MAX_SECONDS, USUAL_SECONDS = 3_600, 60
MAX_NUMBER, USUAL_NUMBER = 10_000, 100
MOST_BYTES, BYTES_OF_ALL = 1024 * 1024, 8 * 1024 * 1024
"""Of the decisions of one worker, and of what all workers together answer or record."""

MOST_READERS = 8
"""Answers with recent decisions that are made at a time: each may be as large as BYTES_OF_ALL."""
WRITTEN_AT_ONCE = 32
"""Records that are written before others get their turn: a fifth of a millisecond."""

_FILTERS = ("reason", "route", "user")
_JSON = "application/json"


class Inspected(Protocol):
    """A sidecar that can be asked, whether it is this process or several others."""

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Ask every process that answers checks; return the answers by name, None where there is none in time."""


@dataclass(slots=True)
class _Recording:
    """The recording that goes on in all workers; `until` and `lease` are in seconds of the loop."""

    left: int
    until: float
    lease: float
    name: str = field(default_factory=lambda: secrets.token_hex(8))


class Operators:
    """The pages of one sidecar, by their paths."""

    def __init__(self, served: Inspected, configuration: Callable[[], Configuration], *, started: float) -> None:
        """Begin without a recording; `started` is in seconds since the epoch, and tells one process from the next."""
        self._served = served
        self._started = started
        self._configuration = configuration
        self._recording: _Recording | None = None
        self._readers = 0
        self._writing = asyncio.Lock()

    @property
    def pages(self) -> Mapping[str, PrivatePage]:
        """What the ops listener shows."""
        return {
            "/decisions": PrivatePage(self._decisions),
            **{
                f"/recording/{name}": PrivatePage(answer, method="POST")
                for name, answer in {"start": self._start, "next": self._next, "end": self._end}.items()
            },
        }

    async def _decisions(self, query: str) -> Page:
        server, fields = self._configuration().settings.server, self._configuration().settings.decision_log.written_fields
        try:
            asked = read_query(query, fields, texts=(*_FILTERS, "id"), numbers={"limit": MAX_LIMIT})
        except QueryError as error:
            return _text(400, str(error))
        if self._readers >= MOST_READERS:
            return _text(TOO_MANY, f"{MOST_READERS} others ask for decisions just now: ask again in a second")
        limit = asked.numbers.get("limit", USUAL_LIMIT)
        request = FindDecisions(asked.wanted, limit, min(MOST_BYTES, BYTES_OF_ALL // server.workers))
        self._readers += 1
        try:
            return await self._answer(request)
        finally:
            self._readers -= 1

    async def _answer(self, request: FindDecisions) -> Page:
        answers = await self._served.ask_each(request)
        found = [answer for answer in answers.values() if isinstance(answer, FoundDecisions)]
        records = sorted((record for each in found for record in each.records), key=_time, reverse=True)
        about = {"workers": _workers(answers), "started": self._started} | _if_cut(found)
        written = []
        # In a single process the loop is that of the checks.
        async with self._writing:
            for number, record in enumerate(records[: request.limit]):
                if number % WRITTEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
                written.append(json.dumps(record))
            return 200, _JSON, f'{{"decisions": [{", ".join(written)}], {json.dumps(about)[1:]}\n'.encode()

    async def _start(self, query: str) -> Page:
        configuration = self._configuration()
        if cause := forbidden(configuration):
            return _text(403, cause)
        fields = configuration.settings.decision_log.written_fields
        try:
            asked = read_query(query, fields, texts=_FILTERS, numbers={"seconds": MAX_SECONDS, "number": MAX_NUMBER})
        except QueryError as error:
            return _text(400, str(error))
        now = asyncio.get_running_loop().time()
        other = self._recording
        if other is not None and now < other.lease:
            rest = max(other.until, now) - now
            return _text(409, f"another recording goes on, for {rest:.0f} s at most: ask again when it has ended")
        seconds, number = asked.numbers.get("seconds", USUAL_SECONDS), asked.numbers.get("number", USUAL_NUMBER)
        self._recording = recording = _Recording(number, now + seconds, now + LEASE)
        room = BYTES_OF_ALL // configuration.settings.server.workers
        answers = await self._served.ask_each(StartRecording(recording.name, asked.wanted, float(seconds), number, room))
        workers = _workers(answers)
        if not workers["answered"]:
            self._recording = None
            return _text(503, "no worker answers: nothing is recorded")
        return _document({"recording": recording.name, "workers": workers})

    async def _next(self, query: str) -> Page:
        recording = self._named(query)
        if not isinstance(recording, _Recording):
            return recording
        recording.lease = asyncio.get_running_loop().time() + LEASE
        answers = await self._served.ask_each(TakeRecorded(recording.name))
        found = [answer for answer in answers.values() if isinstance(answer, Recorded)]
        requests = sorted((request for each in found for request in each.requests), key=_time)[: recording.left]
        recording.left -= len(requests)
        # Workers that are silent for once are not over.
        is_over = not recording.left or (bool(found) and all(each.is_over for each in found))
        if is_over:
            await self._end_of(recording)
        left_out = sum(each.left_out for each in found)
        return _document({"requests": requests, "left_out": left_out, "over": is_over, "workers": _workers(answers)})

    async def _end(self, query: str) -> Page:
        recording = self._named(query)
        if not isinstance(recording, _Recording):
            return recording
        await self._end_of(recording)
        return _document({})

    async def _end_of(self, recording: _Recording) -> None:
        if self._recording is recording:
            self._recording = None
        await self._served.ask_each(EndRecording(recording.name))

    def _named(self, query: str) -> _Recording | Page:
        try:
            name = read_query(query, (), texts=("recording",), numbers={}).wanted.get("recording")
        except QueryError as error:
            return _text(400, str(error))
        recording = self._recording
        if recording is None or recording.name != name:
            return _text(404, "no recording of this name goes on: it has ended, or the sidecar was restarted")
        return recording


def _workers(answers: Mapping[str, Message | None]) -> dict[str, Any]:
    """Say how many were asked and how many answered, and who did not."""
    silent = [name for name, answer in answers.items() if answer is None]
    return {"asked": len(answers), "answered": len(answers) - len(silent)} | ({"silent": silent} if silent else {})


def _if_cut(found: list[FoundDecisions]) -> dict[str, bool]:
    return {"cut": True} if any(each.is_cut for each in found) else {}


def _time(record: Mapping[str, Any]) -> float:
    return float(record["time"])


def _document(value: Mapping[str, Any]) -> Page:
    return 200, _JSON, json.dumps(value).encode() + b"\n"


def _text(status: int, text: str) -> Page:
    return status, "text/plain", text.encode() + b"\n"
