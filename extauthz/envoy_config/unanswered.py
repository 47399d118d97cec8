"""What Envoy itself tells a client while no sidecar answers: local_reply_config, in the form that denials have."""

from __future__ import annotations

import json

from extauthz.envoy_config.templates import filled
from extauthz.responses.denials import Answers, Format

REASON = "check_unanswered"
"""Stands where a denial has its reason; no decision was made, so it is none of them."""
MESSAGE = "The request could not be checked; try again."
REQUEST_ID = "%REQ(X-REQUEST-ID)%"
_GRPC_ONLY = '&& "content-type" in request.headers && request.headers["content-type"].startsWith("application/grpc")\n'


def local_reply(answers: Answers, header: str) -> str:
    """Return the settings as YAML, with the id in this header; of a company's own answers Envoy knows nothing."""
    sentence = json.dumps(f"{MESSAGE} (request {REQUEST_ID})")
    return filled(
        "local_reply",
        {
            "grpc": _mapper(answers, header, _GRPC_ONLY, f"text_format_source: {{inline_string: {sentence}}}\n"),
            "others": _mapper(
                answers, header, "", f"content_type: {answers.format.content_type}\njson_format: {json.dumps(_body(answers))}\n"
            ),
        },
    )


def _mapper(answers: Answers, header: str, only: str, body: str) -> str:
    values = {"decision_id_header": header, "retry_after": str(answers.retry_after), "only": only, "body": body}
    return filled("local_reply_mapper", values)


def _body(answers: Answers) -> dict[str, str]:
    cause = {"error": "temporarily_unavailable", "reason": REASON}
    if answers.format is Format.JSON:
        return {**cause, "message": MESSAGE, "decision_id": REQUEST_ID}
    problem = {"type": "about:blank", "title": "Service Unavailable", "status": "%RESPONSE_CODE%", "detail": MESSAGE}
    return {**problem, **cause, "decision_id": REQUEST_ID}
