"""The endpoints of the API, for the console to mount at `operations.BASE`; they need no other part of the console."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send

from extauthz.admin.rights import Actor, forbidden
from extauthz.console.api import reading
from extauthz.console.api.authentication import WINDOW, WRONG_KEYS, authenticate
from extauthz.console.api.document import document
from extauthz.console.api.operations import BASE, ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem, response
from extauthz.console.api.table import OPERATIONS
from extauthz.console.context import Context
from extauthz.console.guard import SAFE_METHODS
from extauthz.console.throttle import Throttle
from extauthz.errors import ChangeRefused, ConfigurationError, StoreError

_log = logging.getLogger(__name__)

DOCUMENT = "/openapi.json"

_UNREAD = "the token store cannot be used now: try again later; the log of the console says why"
_UNCERTAIN = "the token store cannot be used now, and it is not certain whether it took the change: look before you send it again"
CURSORS = ("after", "before")
"""Parameters that say where a page begins."""


def routes(context: Context) -> list[BaseRoute]:
    """Return what answers below BASE, also at paths where nothing is."""
    return [Api(context)]


class Api(BaseRoute):
    """Everything below BASE. A Mount would leave paths with a line break to the pages."""

    def __init__(self, context: Context) -> None:
        """Make an endpoint for each path of the table."""
        failures = Throttle(WRONG_KEYS, WINDOW)
        paths = dict.fromkeys(operation.path for operation in OPERATIONS)
        # One route for each path, which takes every method: otherwise `Allow` would name those of one operation alone.
        endpoints = {
            path: Endpoint(context, failures, [operation for operation in OPERATIONS if operation.path == path]) for path in paths
        }
        endpoints[DOCUMENT] = OpenApiDocument(context, failures)
        ours = [Route(path, endpoint) for path, endpoint in endpoints.items()]
        self._router = Router(ours, redirect_slashes=False, default=Nowhere())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take every HTTP request below BASE."""
        is_below = scope["type"] == "http" and scope["path"].startswith(f"{BASE}/")
        return (Match.FULL if is_below else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """AnswerModel a request."""
        # For the router a line break may stand behind every path.
        app = self._router if scope["path"].isprintable() else Nowhere()
        await app({**scope, "root_path": BASE}, receive, send)


class Nowhere:
    """Answers where nothing is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """AnswerModel one request."""
        problem = ApiProblem(HTTPStatus.NOT_FOUND, "there is nothing here: the OpenAPI document names all paths")
        await response(problem)(scope, receive, send)


class Endpoint:
    """Answers all requests for one path."""

    def __init__(self, context: Context, failures: Throttle, operations: Iterable[ApiOperation]) -> None:
        """Take the operations of the path."""
        self._context = context
        self._failures = failures
        self._operations = {operation.method: operation for operation in operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """AnswerModel one request."""
        request = Request(scope, receive)
        answer = await self._answered(request)
        await (response(answer) if isinstance(answer, ApiProblem) else answer)(scope, receive, send)

    @property
    def methods(self) -> tuple[str, ...]:
        """What may be sent."""
        return tuple(self._operations)

    async def _answered(self, request: Request) -> Response | ApiProblem:
        method = "GET" if request.method == "HEAD" else request.method
        if method not in self.methods:
            allowed = sorted({*self.methods, *(("HEAD",) if "GET" in self.methods else ())})
            return ApiProblem(HTTPStatus.METHOD_NOT_ALLOWED, "there is no such method here", headers={"allow": ", ".join(allowed)})
        try:
            actor = await authenticate(request, self._context, self._failures)
            return actor if isinstance(actor, ApiProblem) else await self._done(request, method, actor)
        except ChangeRefused as error:
            return ApiProblem(HTTPStatus.CONFLICT, str(error))
        except (ConfigurationError, StoreError) as error:
            _log.error("a request for the API could not be answered", extra={"path": request.url.path, "error": str(error)})
            certain = (
                ""
                if request.method in SAFE_METHODS
                else ", and it is not certain whether it took the change: look before you send it again"
            )
            detail = f"the token store cannot be used now{certain}; the log of the console says why"
            return ApiProblem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"retry-after": "5"})
        except Exception:  # noqa: BLE001 - whatever it is, an answer that says nothing of it
            _log.exception("a request for the API failed", extra={"path": request.url.path})
            return ApiProblem(HTTPStatus.INTERNAL_SERVER_ERROR, "something in the console is broken: its log says what")

    async def _done(self, request: Request, method: str, actor: Actor) -> Response | ApiProblem:
        """Read the rest of the request, whose sender is known, and do what it asks for."""
        operation, context = self._operations[method], self._context
        if refused := forbidden(actor, operation.needs):
            return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, refused)
        query = reading.read_query(request, operation.query)
        if isinstance(query, ApiProblem):
            return query
        headers = reading.read_headers(request, operation.headers)
        if isinstance(headers, ApiProblem):
            return headers
        body = None if operation.body is None else await reading.read_body(request, operation.body)
        if isinstance(body, ApiProblem):
            return body
        if body is not None:
            # It may have been long on its way: what counts is what the key may do now.
            again = await authenticate(request, context, self._failures)
            if isinstance(again, ApiProblem):
                return again
            actor = again
        asked = ApiRequest(
            administration=context.administration(),
            configuration=context.configuration(),
            route_map=context.route_map(),
            collector=context.collector,
            actor=actor,
            at=context.now(),
            path=request.path_params,
            query=query,
            headers=headers,
            body=body,
        )
        act: Any = operation.act
        answer: ApiAnswer | ApiProblem = await (act(asked) if iscoroutinefunction(act) else context.run(act, asked))
        return answer if isinstance(answer, ApiProblem) else _written(request, operation, answer)


class OpenApiDocument(Endpoint):
    """Answers with the OpenAPI document. A key of any role may read it: it names the scopes of the configuration."""

    def __init__(self, context: Context, failures: Throttle) -> None:
        """Take no operation: the document is none of those that it tells of."""
        super().__init__(context, failures, ())

    @property
    def methods(self) -> tuple[str, ...]:
        """What may be sent."""
        return ("GET",)

    async def _done(self, request: Request, method: str, actor: Actor) -> Response | ApiProblem:
        rules = self._context.administration().rules
        content = json.dumps(document(rules.vocabulary, int(rules.max_lifetime)))
        return Response(content, headers={"cache-control": "no-store"}, media_type=reading.JSON)


def _written(request: Request, operation: ApiOperation, answer: ApiAnswer) -> Response:
    same = {name: value for name, value in request.query_params.items() if name not in CURSORS}
    links = [f'<{request.url.path}?{urlencode({**same, **other})}>; rel="{name}"' for name, other in answer.pages.items()]
    headers = {"cache-control": "no-store", **answer.headers, **({"link": ", ".join(links)} if links else {})}
    return Response(answer.content.model_dump_json(), operation.status.value, headers, media_type=reading.JSON)
