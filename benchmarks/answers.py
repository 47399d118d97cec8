"""What benchmarks and soak expect of each answer, so that none of them measures how fast something else is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from google.protobuf.message import DecodeError

from extauthz._pb import ext_authz_pb2 as pb

Judge = Callable[[object], None]
"""Takes an answer's bytes; raises WrongAnswer when it is another one than expected."""


class WrongAnswer(Exception):
    """An answer is not the expected one: what was measured, or soaked, is something else."""


def allowed(user: str | None) -> Judge:
    """Expect an allow for this effective user, or None for nobody: in the header for the upstream and in the metadata."""

    def judge(answer: object) -> None:
        message, reason = _decoded(answer)
        headers = {option.header.key: option.header.value for option in message.ok_response.headers}
        users = {headers.get("x-extauthz-user"), message.dynamic_metadata.fields["user"].string_value or None}
        if not _is_allow(message) or reason != "allowed" or users != {user}:
            raise WrongAnswer(f"expected an allow for {user or 'nobody'}, got {reason or 'no reason'} for {users}")

    return judge


def allow(answer: object) -> None:
    """Expect an allow, whoever gives it and for whom."""
    message, _ = _decoded(answer)
    if not _is_allow(message):
        raise WrongAnswer(f"expected an allow, got {message.status.code}")


def refused(*reasons: str) -> Judge:
    """Expect a denial for one of these reasons."""

    def judge(answer: object) -> None:
        message, reason = _decoded(answer)
        if _is_allow(message) or not message.HasField("denied_response") or reason not in reasons:
            raise WrongAnswer(f"expected a denial for {' or '.join(reasons)}, got {reason or 'no reason'}")

    return judge


def exactly(expected: bytes) -> Judge:
    """Expect these bytes."""

    def judge(answer: object) -> None:
        if answer != expected:
            raise WrongAnswer(f"expected {expected[:20]!r}…, got {answer!r:.100}")

    return judge


def judge_all(judge: Judge, answers: Iterable[object]) -> None:
    """Judge answers one after the other; raises WrongAnswer at the first that is wrong."""
    for answer in answers:
        judge(answer)


def judge_h2load(printed: str, size: int, *, in_flight: int) -> None:
    """Judge what h2load printed of a run without warm-up: all answers came, each with a body of `size` bytes.

    Of so many calls h2load may have read the answer and not have counted it, because it ended. All answers to one request have one
    length, and those to another decision have another: raises WrongAnswer for the first run in which one differs.
    """
    counted = re.search(
        r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", printed
    )
    data = re.search(r"\((\d+)\) data$", printed, re.MULTILINE)
    if counted is None or data is None:
        raise WrongAnswer(f"h2load counted nothing:\n{printed[-800:]}")
    succeeded, *failures = map(int, counted.groups())
    if any(failures) or not succeeded:
        raise WrongAnswer(f"calls failed, or there were none: {counted[0]}")
    count, rest = divmod(int(data[1]), size)
    if rest or not succeeded <= count <= succeeded + in_flight:
        raise WrongAnswer(f"{succeeded} answers of {size} bytes were expected, and {data[1]} bytes came")


def _decoded(answer: object) -> tuple[pb.CheckResponse, str]:
    if not isinstance(answer, bytes) or not answer:
        raise WrongAnswer(f"expected an answer, got {answer!r:.100}")
    try:
        message = pb.CheckResponse.FromString(answer)
    except DecodeError as error:
        raise WrongAnswer(f"an answer cannot be read: {error}") from error
    return message, message.dynamic_metadata.fields["reason"].string_value


def _is_allow(message: pb.CheckResponse) -> bool:
    """Tell whether Envoy takes it for an allow: an absent status is OK, and then the response for it must be there as well."""
    return message.status.code == 0 and message.HasField("status") and message.HasField("ok_response")
