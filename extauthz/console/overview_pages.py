"""The first page: tokens, denials and sidecars in a few numbers, each a link to what it counts."""

from __future__ import annotations

from starlette.responses import Response

from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.admin import keys
from extauthz.admin.outcomes import Refused
from extauthz.admin.overview import SOON, TokenCount
from extauthz.admin.rights import Operation, may
from extauthz.admin.token_search import TokenStatus
from extauthz.console import activity_pages
from extauthz.console.charts import short
from extauthz.console.token_forms import DAY, TokenListing
from extauthz.console.visits import Visit, message_page


async def show(visit: Visit) -> Response:
    """Show the overview."""
    context = visit.context
    counts = await context.run(context.overviews.current, context.administration(), visit.actor, context.now())
    if isinstance(counts, Refused):
        return message_page("Not for you", counts.refusals[0].message, 403)
    activity = await context.collector.current()
    roles = context.configuration().settings.roles
    outliving: tuple[AdminKeyRecord, ...] = ()
    if may(visit.actor, Operation.READ_KEYS):
        outliving = await context.run(keys.outliving, context.administration().store, context.now(), roles)
    active = sum(statuses[TokenStatus.ACTIVE].count for statuses in counts.by_status.values())
    return visit.page(
        "overview.html",
        **activity_pages.facts_of(visit, activity),
        counts=counts,
        active=active,
        suspended=sum(keys.acting_role(key, roles) is None for key in outliving),
        outliving=len(outliving),
        statuses=tuple(TokenStatus),
        query=query,
        short=short,
        soon_days=SOON // DAY,
    )


def query(count: TokenCount) -> str:
    """Return what stands behind /tokens in the address of the list that a number counts."""
    search = count.search
    texts = {
        "status": search.status and search.status.value,
        "permission": search.permission and search.permission.value,
        "expiring": None if search.expiring_within is None else str(search.expiring_within // DAY),
        "unused": "never" if search.never_used else None,
    }
    return TokenListing.of({name: text for name, text in texts.items() if text}).link("")
