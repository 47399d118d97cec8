"""What is worth knowing of a sidecar: each condition has a sentence, and each remote verification a condition."""

from __future__ import annotations

from extauthz.core.providers import Verification
from extauthz.telemetry.conditions import SENTENCES, Condition, ConditionKey


def test_each_condition_has_a_sentence_of_its_own() -> None:
    assert set(SENTENCES) == set(ConditionKey)
    assert len(set(SENTENCES.values())) == len(SENTENCES)


def test_each_remote_verification_has_a_condition() -> None:
    remote = {f"issuer_{method}" for method in Verification if method is not Verification.JWKS}
    assert remote <= {key.value for key in ConditionKey}


def test_a_document_names_issuer_and_worker_where_there_are_several() -> None:
    alone = Condition(ConditionKey.ENFORCED, met=True)
    one_of_many = Condition(ConditionKey.ISSUER_KEYS, met=False, issuer="https://acme.okta.com", worker=0)

    assert alone.document() == {"key": "enforced", "met": True, "message": "every refusal is enforced"}
    assert one_of_many.document() == {
        "key": "issuer_keys",
        "met": False,
        "message": "there are keys of the issuer",
        "issuer": "https://acme.okta.com",
        "worker": 0,
    }
