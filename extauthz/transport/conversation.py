"""Calls that are a stream of questions, each of which gets an answer, as server reflection is: few, small and short."""

from __future__ import annotations

from collections.abc import Callable

from extauthz.transport import messages
from extauthz.transport.answers import framed
from extauthz.transport.connection import Connection
from extauthz.transport.messages import Head, Refusal
from extauthz.transport.reflection import MAX_CALLS, MAX_QUESTION, MAX_QUESTIONS
from extauthz.transport.streams import RESET, Stream

MAX_UNSENT = 256 * 1024
"""Bytes of answers that the client has not taken; the memory of all calls is bounded by this."""


def go_on(connection: Connection, stream: Stream, head: Head, reply: Callable[[bytes], bytes | None]) -> None:
    """Answer the questions that have come completely, and end the call when the client has, or asks for too much.

    `reply` returns None for a question that is not readable.
    """
    body = connection.release(stream)
    if stream.refusal is RESET or (stream.answer and not stream.more):
        return
    refusal = stream.refusal or (None if stream.is_counted else _admitted(connection, stream))
    answers = b""
    while refusal is None and len(body) >= messages.PREFIX:
        size = messages.PREFIX + int.from_bytes(body[1 : messages.PREFIX], "big")
        if size > messages.PREFIX + MAX_QUESTION:
            refusal = messages.QUESTION_TOO_LARGE
            break
        if len(body) < size:
            break
        answer = _answer(body[:size], head, reply)
        stream.questions += 1
        if isinstance(answer, Refusal):
            refusal = answer
        elif stream.questions > MAX_QUESTIONS or len(stream.answer) - stream.sent + len(answers) + len(answer) > MAX_UNSENT:
            refusal = messages.TOO_MANY_QUESTIONS
        else:
            answers += framed(answer)
            body = body[size:]
    if refusal is None:
        connection.keep(stream, body)
        if stream.complete and body:
            refusal = messages.NO_MESSAGE
    connection.reply(stream, answers)
    if refusal is not None or stream.complete:
        connection.end(stream, refusal)


def _admitted(connection: Connection, stream: Stream) -> Refusal | None:
    """Count a call that begins, unless there are too many."""
    if connection.tally.calls >= MAX_CALLS:
        return messages.TOO_MANY_QUESTIONS
    connection.tally.calls += 1
    stream.is_counted = True
    return None


def _answer(piece: bytes | bytearray, head: Head, reply: Callable[[bytes], bytes | None]) -> bytes | Refusal:
    question = messages.read(piece, head.encoding, MAX_QUESTION)
    if isinstance(question, Refusal):
        return question
    answer = reply(question)
    return messages.QUESTION_NOT_READABLE if answer is None else answer
