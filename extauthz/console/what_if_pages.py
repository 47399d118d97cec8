"""The page of what a changed configuration would do: pasted files are compared with those that count, and kept nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

import anyio
from starlette.responses import Response

from extauthz.admin.token_search import may_hold_secret
from extauthz.config.loader import Configuration
from extauthz.console.pasted_configuration import MAX_NAME, read_pasted, route_file_names, with_saved_settings
from extauthz.console.visits import Visit
from extauthz.errors import ConfigurationError
from extauthz.tools.diff import differences
from extauthz.tools.diff_shape import Differences, Impact
from extauthz.tools.masking import Mask

PATH = "/what-if"
MAX_BODY = 1024 * 1024
"""Bytes of the form; 10,000 routes have about as many."""
REPEATED = ("name", "routes")
"""Fields that come once for each route file."""
MOST_FILES = 8
"""Route files that have a field of their own."""
MOST = 200
"""Findings, settings and problems of one page; `extauthz diff` lists them all."""
MOST_CALLERS = 6
"""Callers that are shown of one finding."""
STEPS = 300_000
"""Of the comparison alone: about a second and a half. What is pasted is read before, which has limits of its own."""

IMPACTS: Mapping[Impact, tuple[str, str]] = {
    Impact.WIDENED: ("let in now", "denied"),
    Impact.NARROWED: ("refused now", "soon"),
    Impact.HEADERS: ("other headers", ""),
    Impact.REASON: ("another reason", ""),
}
"""What becomes of requests, in words, and how that is shown."""

_EMPTY = "paste at least one file: there is nothing to compare"
_BUSY = "another comparison is being made: send the form again in a few seconds"
_NAMELESS = "write its name, as extauthz.yaml has it below routes"


async def show(visit: Visit) -> Response:
    """Show the form."""
    return _page(visit, visit.context.configuration())


async def compare(visit: Visit) -> Response:
    """Show what would differ if the pasted files counted."""
    context, counting = visit.context, visit.context.configuration()
    settings, routes = visit.form.text("settings"), _pasted_routes(visit)
    error = _refusal(settings, routes)
    if error is None and context.comparing.borrowed_tokens:
        error = _BUSY
    if error is not None:
        return _page(visit, counting, problems=[error], status=422)
    try:
        counting = await context.run(with_saved_settings, counting, context.administration(), visit.actor)
        work = partial(_compared, counting, settings or None, {name: text for name, text in routes if text})
        found = await anyio.to_thread.run_sync(work, limiter=context.comparing)
    except ConfigurationError as wrong:
        return _page(visit, counting, problems=list(map(str, wrong.problems)), status=422)
    return _page(visit, counting, found=found)


def _compared(counting: Configuration, settings: str | None, routes: Mapping[str, str]) -> Differences:
    return differences(counting, read_pasted(counting, settings, routes), budget=STEPS)


def _pasted_routes(visit: Visit) -> list[tuple[str, str]]:
    """Return name and text of each route file of the form."""
    names, texts = visit.form.all("name"), visit.form.all("routes")
    return [(name.strip(), text.strip()) for name, text in zip(names, texts, strict=False)]


def _refusal(settings: str, routes: list[tuple[str, str]]) -> str | None:
    pasted = [name for name, text in routes if text]
    if not settings and not pasted:
        return _EMPTY
    if not all(pasted):
        return f"a route file has no name: {_NAMELESS}"
    if any(len(name) > MAX_NAME for name in pasted):
        return f"the name of a route file has {MAX_NAME} characters at most"
    twice = [name for name, count in Counter(pasted).items() if count > 1]
    return f"{twice[0]} was pasted twice: keep one" if twice else None


def _page(
    visit: Visit,
    counting: Configuration,
    *,
    found: Differences | None = None,
    problems: list[str] | None = None,
    status: int = 200,
) -> Response:
    hide = Mask().tokens
    folder, problems = f"{counting.file.parent}/", problems or []
    prefixes = visit.context.administration().prefixes
    pasted = [(name, _again(text, prefixes)) for name, text in _pasted_routes(visit)]
    texts = {name: text for name, text in pasted if name}
    names = route_file_names(counting)[:MOST_FILES]
    others = [(_again(name, prefixes), text) for name, text in pasted if name not in names and (name or text)]
    counts = Counter(finding.impact for finding in found.findings) if found else Counter()
    return visit.page(
        "what_if.html",
        status=status,
        file=counting.file.name,
        settings=_again(visit.form.text("settings"), prefixes),
        files=[(name, texts.get(name, "")) for name in names],
        other=others[0] if others else ("", ""),
        hide=hide,
        problems=list(map(hide, problems[:MOST])),
        more_problems=max(0, len(problems) - MOST),
        found=found,
        counts=[(impact, IMPACTS[impact], counts[impact]) for impact in Impact],
        impacts=IMPACTS,
        findings=found.findings[:MOST] if found else (),
        more=max(0, len(found.findings) - MOST) if found else 0,
        most=MOST,
        most_callers=MOST_CALLERS,
        place=lambda text: text.removeprefix(folder),
    )


def _again(text: str, prefixes: frozenset[str]) -> str:
    """Return a text that is shown in its field again, nothing of one that may hold a token: a part of it would be no file."""
    return "" if may_hold_secret(text, prefixes) or Mask().tokens(text) != text else text
