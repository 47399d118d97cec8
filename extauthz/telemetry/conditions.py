"""What is worth knowing of a sidecar besides whether it is ready: the details of /readyz, by keys that stay the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ConditionKey(StrEnum):
    """Names a condition for programs."""

    CONFIGURATION_CURRENT = "configuration_current"
    FILES_REPLACED = "files_replaced"
    RESTART_NOT_NEEDED = "restart_not_needed"
    CERTIFICATE_CURRENT = "certificate_current"
    ENFORCED = "enforced"
    STORE_FOLLOWED = "store_followed"
    PARENT_RUNNING = "parent_running"
    ISSUER_KEYS = "issuer_keys"
    ISSUER_KEYS_CURRENT = "issuer_keys_current"
    ISSUER_INTROSPECTION = "issuer_introspection"
    ISSUER_USERINFO = "issuer_userinfo"
    ISSUER_TOKENINFO = "issuer_tokeninfo"


SENTENCES = {
    ConditionKey.CONFIGURATION_CURRENT: "the configuration that is served is that of the files, and of the settings in the store",
    ConditionKey.FILES_REPLACED: "the configuration files are replaced as a whole",
    ConditionKey.RESTART_NOT_NEEDED: "no changed key waits for a restart",
    ConditionKey.CERTIFICATE_CURRENT: "the certificate that is shown is that of its files",
    ConditionKey.ENFORCED: "every refusal is enforced",
    ConditionKey.STORE_FOLLOWED: "the change feed of the token store was read lately",
    ConditionKey.PARENT_RUNNING: "the parent process runs",
    ConditionKey.ISSUER_KEYS: "there are keys of the issuer",
    ConditionKey.ISSUER_KEYS_CURRENT: "the keys of the issuer are newer than the last unknown key id",
    ConditionKey.ISSUER_INTROSPECTION: "introspection of the issuer is asked: its breaker is closed",
    ConditionKey.ISSUER_USERINFO: "userinfo of the issuer is asked: its breaker is closed",
    ConditionKey.ISSUER_TOKENINFO: "tokeninfo of the issuer is asked: its breaker is closed",
}
"""What holds while a condition is met, for people."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, of an `issuer` or a `worker` where there can be several."""

    key: ConditionKey
    met: bool
    issuer: str | None = None
    worker: int | None = None

    def document(self) -> dict[str, object]:
        """Return it as an object of JSON, with a sentence for people."""
        document: dict[str, object] = {"key": self.key.value, "met": self.met, "message": SENTENCES[self.key]}
        if self.issuer is not None:
            document["issuer"] = self.issuer
        if self.worker is not None:
            document["worker"] = self.worker
        return document
