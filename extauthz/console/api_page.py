"""The operations of the API as a page."""

from __future__ import annotations

from starlette.responses import Response

from extauthz.console.api.document import least_role, parameters_of
from extauthz.console.api.operations import BASE
from extauthz.console.api.table import OPERATIONS
from extauthz.console.visits import Visit


async def show(visit: Visit) -> Response:
    """Show every operation with what it takes and who may ask for it."""
    rows = [
        {
            "method": operation.method,
            "path": BASE + operation.path,
            "summary": operation.summary,
            "role": least_role(operation),
            "parameters": [parameter["name"] for parameter in parameters_of(operation) if parameter["in"] == "query"],
            "status": operation.status.value,
        }
        for operation in OPERATIONS
    ]
    return visit.page("api.html", rows=rows, base=BASE)
