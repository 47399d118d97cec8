"""Why a request is decided as it is: each check in the order of docs/decisions.md, what it compared, and by which rule.

Nothing is decided here: the steps that serve decide once, and the reason that they come to belongs to one check. Those before it
were passed, those behind it were not reached. No text of an explanation holds a token.
"""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.config.loader import Configuration
from extauthz.core.decide import Plan, plan
from extauthz.core.model import ALLOWING, AuthType, Decision, Deny, Identity, Reason, Request
from extauthz.core.paths import Path, parse
from extauthz.tools.calls import decided
from extauthz.tools.explain_checks import described, notes
from extauthz.tools.explain_model import STEP_OF, Check, CheckOutcome, Explanation, Step
from extauthz.tools.explain_remedies import remedies
from extauthz.tools.explain_view import View, upstream_headers
from extauthz.tools.masking import Mask, mask_of
from extauthz.tools.refusal_hints import HINTS


def explain(
    configuration: Configuration,
    request: Request | None,
    evidence: Identity | Reason | None,
    now: float,
    *,
    mask: Mask | None = None,
) -> Explanation:
    """Explain a request, None for bytes that hold none.

    `evidence` is what verifying its token comes to, None where nobody verified it; it does not count for a request that is decided
    without. `now` is in seconds since the epoch. `mask` hides secrets that the request itself does not hold.
    """
    if request is None:
        return _unreadable()
    planned = plan(configuration.policy, request)
    decision = None
    if not isinstance(planned, Plan) or evidence is not None:
        decision = decided(configuration.policy, request, lambda _: evidence or Reason.TOKEN_UNKNOWN, now)
    hidden = mask_of(request.headers, request.path, mask.secrets if mask else ()).of(configuration.policy)
    view = View(configuration, request, planned, decision, evidence, hidden)
    headers, removed = upstream_headers(view)
    return Explanation(
        tuple(_checks(view)),
        decision,
        headers,
        removed,
        tuple(map(view.mask.tokens, remedies(view))),
        tuple(map(view.mask.tokens, notes(view))),
    )


def step_of(request: Request, decision: Decision) -> Step:
    """Return the check that came to a decision: a path is ambiguous by itself, or because of the literals of the routes."""
    is_readable = decision.reason is Reason.PATH_AMBIGUOUS and isinstance(parse(request.path.partition("?")[0]), Path)
    return Step.ROUTE if is_readable else STEP_OF[decision.reason]


def _checks(view: View) -> Iterator[Check]:
    decision = view.decision
    last = Step.TOKEN if decision is None else step_of(view.request, decision)
    steps = list(Step)
    for step in steps:
        outcome = CheckOutcome.NOT_REACHED
        if step is last:
            outcome = (
                CheckOutcome.UNKNOWN
                if decision is None
                else CheckOutcome.PASSED
                if decision.reason in ALLOWING
                else CheckOutcome.FAILED
            )
        elif steps.index(step) < steps.index(last):
            outcome = CheckOutcome.NOT_NEEDED if _is_pointless(view, step) else CheckOutcome.PASSED
        elif last is Step.PUBLIC:
            outcome = CheckOutcome.NOT_NEEDED
        value, rule, place = described(view, step, outcome)
        yield Check(step, outcome, view.mask(value), rule, place)


def _is_pointless(view: View, step: Step) -> bool:
    """Tell whether a check that was passed has no meaning for this request."""
    is_anonymous = view.identity is not None and view.identity.auth_type is AuthType.ANONYMOUS
    match step:
        case Step.METHOD_IN_QUERY:
            return not view.reads_method_in_query
        case Step.PUBLIC:
            return True
        case Step.KIND:
            return is_anonymous
        case Step.ANONYMOUS:
            return not is_anonymous
    return False


def _unreadable() -> Explanation:
    first, *others = Step
    check = Check(first, CheckOutcome.FAILED, "no HTTP request", "a CheckRequest that holds an HTTP request")
    return Explanation(
        (check, *(Check(step, CheckOutcome.NOT_REACHED) for step in others)),
        Deny(Reason.REQUEST_MALFORMED),
        remedies=(HINTS[Reason.REQUEST_MALFORMED],),
    )
