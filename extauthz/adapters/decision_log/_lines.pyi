from collections.abc import Callable, Collection

from extauthz.core.model import Decision, Identity, Reason, Request

class UsualLines:
    def __init__(
        self,
        fields: Collection[str],
        reasons: dict[tuple[str, Reason], str],
        samples: dict[Reason, str],
        caller: Callable[[str | None, Identity | None, str | None], str],
    ) -> None: ...
    def line(self, moment: float, request: Request, decision: Decision, seconds: float) -> bytes | None: ...
