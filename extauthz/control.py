"""What a parent and its workers say to each other: JSON lines over a socket that only the two of them hold."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from extauthz.metric_table import Exemplar, Histogram, Samples, Value

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one message: a configuration with thousands of routes, written in base64."""

Message = dict[str, Any]


class Channel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take both directions of a stream."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, opened: socket.socket) -> Channel:
        """Talk over one of a pair of sockets, which is closed with the channel."""
        reader, writer = await asyncio.open_unix_connection(sock=opened, limit=MAX_LINE)
        return cls(reader, writer)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Return both ends."""
        return socket.socketpair()

    async def send(self, message: Message) -> None:
        """Send one message; raises OSError when the other side has gone, and ValueError for one that it would not read."""
        line = json.dumps(message).encode("ascii") + b"\n"
        if len(line) > MAX_LINE:
            raise ValueError(f"a message of {len(line)} bytes is larger than the {MAX_LINE} that a worker reads")
        self._writer.write(line)
        await self._writer.drain()

    async def receive(self) -> Message | None:
        """Return the next message, or None when the other side has gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        message = json.loads(line) if line.endswith(b"\n") else None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Say nothing more."""
        self._writer.close()


def packed_files(contents: Mapping[Path, bytes]) -> dict[str, str]:
    """Write the contents of files as text."""
    return {str(path): base64.b64encode(content).decode("ascii") for path, content in contents.items()}


def unpacked_files(packed: Mapping[str, str]) -> dict[Path, bytes]:
    """Read what `packed_files` wrote."""
    return {Path(path): base64.b64decode(content) for path, content in packed.items()}


def packed_samples(samples: Samples) -> list[list[Any]]:
    """Write samples as lists."""
    return [
        [name, list(labels), {**asdict(value)} if isinstance(value, Histogram) else value]
        for (name, labels), value in samples.items()
    ]


def unpacked_samples(packed: list[list[Any]]) -> Samples:
    """Read what `packed_samples` wrote."""
    return {(name, tuple(labels)): _unpacked(value) for name, labels, value in packed}


def _unpacked(value: float | dict[str, Any]) -> Value:
    if not isinstance(value, dict):
        return value
    exemplars: dict[int, Exemplar] = {int(index): (str(one), two, three) for index, (one, two, three) in value["exemplars"].items()}
    return Histogram(value["counts"], value["total"], exemplars)
