"""The headers that clients send and get, by the names that answers tell them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import Kind
from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import Reason
from extauthz.core.policy import Policy

_SPELLED = {"actas": "ActAs"}


@dataclass(frozen=True, slots=True)
class ClientHeaders:
    """Names as people write them; `auth_type` is "" where no header tells the kind of a token, or clients have no use for it.

    `oauth` is its value for OAuth access tokens, None where none are accepted. `decision_id` is in lower case.
    """

    act_as: str = "X-Scio-ActAs"
    auth_type: str = "X-Glean-Auth-Type"
    oauth: str | None = "OAUTH"
    decision_id: str = IdentityHeaders().names["decision-id"]

    @classmethod
    def of(cls, policy: Policy, oauth: str, written: Collection[str] = ()) -> ClientHeaders:
        """Return those of a policy; `oauth` and `written` are the value of the header of kinds, and names, as they are configured.

        Of several act-as headers the first that the configuration adds is named.
        """
        names = policy.act_as.headers
        return cls(
            act_as=spelled(next((name for name in names if name not in ACT_AS_HEADERS), names[0]), written),
            auth_type=spelled(policy.auth_types.header, written),
            oauth=oauth if Kind.OAUTH in policy.kinds else None,
            decision_id=policy.identity.names["decision-id"],
        )

    @property
    def auth_type_of_oauth(self) -> str | None:
        """The header and value of an OAuth access token, None where it needs none or none is accepted."""
        return f"{self.auth_type}: {self.oauth}" if self.auth_type and self.oauth else None

    def messages(self) -> dict[Reason, str]:
        """Return the sentences for clients in which headers are named."""
        advice = f" An OAuth access token needs the header {self.auth_type_of_oauth}." if self.auth_type_of_oauth else ""
        values = f"{self.oauth} or absent" if self.oauth else "absent"
        return {
            **{reason: f"The token is not valid.{advice}" for reason in Reason if reason.public_name == "token_invalid"},
            Reason.AUTH_TYPE_UNKNOWN: f"{self.auth_type} must be {values}.",
            Reason.ACT_AS_MISSING: f"Required header missing: {self.act_as}.",
            Reason.ACT_AS_MALFORMED: f"{self.act_as} must be one e-mail address.",
            Reason.ACT_AS_NOT_ALLOWED: f"{self.act_as} must be empty with this kind of token.",
        }


def spelled(name: str, written: Collection[str] = ()) -> str:
    """Write the name of a header, which is in lower case, as one of `written` does with capitals, else as people do."""
    own = (each for each in written if each.lower() == name != each)
    return next(own, "-".join(_SPELLED.get(word, word.capitalize()) for word in name.split("-")))
