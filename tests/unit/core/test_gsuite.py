"""Access tokens of GSuite, which only Google can read: genuine ones, what must not pass for one, and how long an answer counts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import Unavailable
from tests.support.remote import (
    GOOGLE,
    GOOGLE_CLIENT,
    GOOGLE_SCOPES,
    GOOGLE_USER,
    Remote,
    Told,
    check,
    google_userinfo,
    tokeninfo,
)
from tests.support.virtual_time import elapse, in_virtual_time
from tests.support.world import NOW, World

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
TOKEN = "ya29.a0AfB_byDzx-Sb7Qj2LkP0genuine"
OTHER = "999999999999-evil.apps.googleusercontent.com"


def named(value: object) -> str:
    return str(value)[:60]


class GSuite:
    """A world whose OAuth provider is GSuite, and Google; asked about TOKEN it tells the `answer`."""

    def __init__(
        self, folder: Path, answer: Told, *, user: Told | None = None, server: dict[str, Any] | None = None, **changes: Any
    ) -> None:
        self.tokeninfo, self.userinfo = Remote({TOKEN: answer}), Remote({TOKEN: user} if user is not None else {})
        gsuite = {"provider": "gsuite", "issuer": None, "audience": None, "client_ids": [GOOGLE_CLIENT], "domains": ["acme.com"]}
        introspectors = {(GOOGLE, Verification.TOKENINFO): self.tokeninfo}
        if "hosted_domains" in changes:
            introspectors[GOOGLE, Verification.USERINFO] = self.userinfo
        self.world = World(folder, ROUTES, {"oauth": gsuite | changes}, introspectors=dict(introspectors))

    async def reason(self, token: str = TOKEN, line: str = "POST /search") -> str:
        return (await check(self.world, token, line)).reason


# --- who comes in


async def test_a_genuine_token_is_accepted(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo())
    answer = await check(it.world, TOKEN)
    assert answer.reason == "allowed"
    assert {name.removeprefix("x-extauthz-"): value for name, value in answer.headers.items()} == {
        "user": "ana@acme.com",
        "actor": f"oauth:gsuite:{GOOGLE_USER}",
        "auth-type": "OAUTH",
        "client-id": GOOGLE_CLIENT,
        "scopes": "CHAT,DOCUMENTS,FEED,SEARCH",
        "decision-id": answer.headers["x-extauthz-decision-id"],
    }
    assert answer.decision.identity is not None
    assert answer.decision.identity.expires_at == NOW + 3543
    assert it.tokeninfo.asked == [TOKEN]
    assert it.userinfo.asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"azp": None},
        {"scope": "openid email profile"},
        {"scope": f"profile {GOOGLE_SCOPES}email openid"},
        {"scope": f"https://www.googleapis.com/auth/drive  openid {GOOGLE_SCOPES}email {GOOGLE_SCOPES}profile "},
        {"exp": str(NOW + 1), "expires_in": "1"},
        {"exp": NOW + 1, "expires_in": 1, "email_verified": True},
        {"exp": NOW + 0.5, "expires_in": 0.5},
        {"iat": str(NOW), "nbf": NOW},
        {"expires_in": None, "access_type": None},
        {"email": "ANA@ACME.COM"},
        {"email": "ana+news@acme.com"},
        {"locale": "de", "picture": "https://lh3.googleusercontent.com/a"},
    ],
    ids=named,
)
async def test_what_google_may_say_otherwise(tmp_path: Path, change: dict[str, Any]) -> None:
    assert await GSuite(tmp_path, tokeninfo(**change)).reason() == "allowed"


CLIENTS: list[Any] = [
    None,
    OTHER,
    "",
    GOOGLE_CLIENT + " ",
    GOOGLE_CLIENT[:-1],
    GOOGLE_CLIENT.upper(),
    f"{GOOGLE_CLIENT},{OTHER}",
    0,
    True,
]
CLIENTS += [[GOOGLE_CLIENT], {GOOGLE_CLIENT: 1}, 123456789012, "110248495921238986420"]
TIMES: list[Any] = [
    "",
    " ",
    f"{NOW + 60}.0",
    f"{NOW + 60}.5",
    "2e9",
    "1e400",
    "nan",
    "NaN",
    "inf",
    "Infinity",
    "-1",
    "+2000000000",
    "0x77359400",
]
TIMES += [f" {NOW + 60}", f"{NOW + 60}\n", f"{NOW + 60} s", "2_000_000_000", "9" * 16, "9" * 400, "２０００００００００", "soon"]
TIMES += [True, False, [str(NOW + 60)], {"exp": NOW + 60}, float("nan"), float("inf"), -float("inf"), 1e300]
SCOPES: list[Any] = [
    "",
    " ",
    "openid",
    "email profile",
    "openid email",
    "openid profile",
    "OPENID email profile",
    "openid,email,profile",
]
SCOPES += ["openid\temail\tprofile", "openidemail profile", f"openid {GOOGLE_SCOPES}email.x {GOOGLE_SCOPES}profile"]
SCOPES += ["openid http://www.googleapis.com/auth/userinfo.email profile", ["openid", "email"], ["openid email profile", 1], 7, {}]
VERIFIED: list[Any] = [
    "false",
    "False",
    "TRUE",
    "True",
    "yes",
    "on",
    "",
    " true",
    "0",
    False,
    0,
    2,
    [],
    ["true"],
    {"true": True},
    float("nan"),
]
ADDRESSES: list[Any] = [
    "",
    "ana",
    "ana@",
    "@acme.com",
    "ana@acme",
    "ana@@acme.com",
    "ana@evil.com@acme.com",
    "ana@acme.com,eve@acme.com",
]
ADDRESSES += ["ana@acme.com eve@acme.com", " ana@acme.com", "ana@acme.com\n", "ana@acme.com.", "Ana <ana@acme.com>", "añа@acme.com"]
ADDRESSES += [
    "ana＠acme.com",
    "ana@açme.com",
    "ana@acme。com",
    "ana%40acme.com",
    "a..b@acme.com",
    ".ana@acme.com",
    "ana\x00@acme.com",
]
ADDRESSES += ['"ana"@acme.com', "ana@[127.0.0.1]", "a" * 65 + "@acme.com", "ana@" + "a" * 64 + ".acme.com", "ana;x@acme.com"]
ADDRESSES += [["ana@acme.com"], {"ana@acme.com": 1}, 7, True, "\ud800ana@acme.com"]
STRANGERS = ["ana@evil.com", "ana@sub.acme.com", "ana@acme.com.evil.com", "ana@notacme.com", "ana@acme-com.com", "ana@gmail.com"]
STRANGERS += ["x@notgserviceaccount.com"]
ROBOTS = ["robot@p.iam.gserviceaccount.com", "x@evil.gserviceaccount.com", "x@gserviceaccount.com", "X@P.IAM.GServiceAccount.COM"]
ROBOTS += ["1234-compute@developer.gserviceaccount.com"]

MISTAKES: list[tuple[dict[str, Any], str]] = [
    *(({"aud": client}, "token_client") for client in CLIENTS),
    *(({"azp": client}, "token_client") for client in CLIENTS if client is not None),
    ({"aud": OTHER, "azp": OTHER}, "token_client"),
    ({"exp": None}, "token_claims_malformed"),
    ({"exp": None, "expires_in": "3600"}, "token_claims_malformed"),
    *(({"exp": exp}, "token_claims_malformed") for exp in TIMES),
    *(({"exp": str(exp)}, "token_expired") for exp in (NOW, NOW - 1, 0, "000")),
    ({"scope": None}, "token_kind_wrong"),
    *(({"scope": scope}, "token_kind_wrong") for scope in SCOPES),
    ({"email_verified": None}, "token_user_invalid"),
    *(({"email_verified": verified}, "token_user_invalid") for verified in VERIFIED),
    ({"email": None}, "token_user_invalid"),
    *(({"email": email}, "token_user_invalid") for email in ADDRESSES),
    *(({"email": email}, "token_user_not_allowed") for email in STRANGERS),
    *(({"email": email}, "token_kind_wrong") for email in ROBOTS),
    *(({"sub": sub}, "token_claims_malformed") for sub in (None, "", 110248495921238986420, [GOOGLE_USER], True, "\ud800")),
    ({"sub": GOOGLE_CLIENT}, "token_kind_wrong"),
    *(({mark: "x"}, "token_kind_wrong") for mark in ("nonce", "at_hash", "c_hash")),
    ({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, "token_header_forbidden"),
    ({"cnf": ""}, "token_header_forbidden"),
    ({"iat": NOW + 61}, "token_not_yet_valid"),
    ({"nbf": NOW + 61}, "token_not_yet_valid"),
]


@pytest.mark.parametrize(("change", "reason"), MISTAKES, ids=named)
async def test_one_error_is_enough(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert await GSuite(tmp_path, tokeninfo(**change)).reason() == reason


@pytest.mark.parametrize("name", ["aud", "azp", "exp", "scope", "email_verified", "email", "sub", "cnf", "nonce"])
async def test_null_is_never_good(tmp_path: Path, name: str) -> None:
    answer = await check(GSuite(tmp_path, tokeninfo() | {name: None}).world, TOKEN)
    assert answer.status == 401


@pytest.mark.parametrize(
    "iss", ["https://evil.example", "https://accounts.google.com.evil.example", ["https://accounts.google.com"]]
)
async def test_an_answer_about_a_token_of_another_issuer_is_refused(tmp_path: Path, iss: object) -> None:
    assert await GSuite(tmp_path, tokeninfo(iss=iss)).reason() == "token_issuer"


async def test_what_tokeninfo_says_of_an_id_token_is_refused(tmp_path: Path) -> None:
    told = tokeninfo(scope=None, expires_in=None, access_type=None, iss="https://accounts.google.com", iat=str(NOW), alg="RS256")
    answer = await check(GSuite(tmp_path, told).world, TOKEN)
    assert answer.status == 401


@pytest.mark.parametrize("answer", [{}, {"error": "invalid_token"}, {"aud": GOOGLE_CLIENT}], ids=named)
async def test_an_answer_that_says_little_is_refused(tmp_path: Path, answer: dict[str, Any]) -> None:
    assert (await check(GSuite(tmp_path, answer).world, TOKEN)).status == 401


async def test_a_token_that_google_does_not_know_is_refused(tmp_path: Path) -> None:
    assert await GSuite(tmp_path, Reason.TOKEN_INACTIVE).reason() == "token_inactive"


async def test_domains_can_be_opened_but_not_for_service_accounts(tmp_path: Path) -> None:
    for number, (email, reason) in enumerate(
        [*((email, "allowed") for email in STRANGERS), *((email, "token_kind_wrong") for email in ROBOTS)]
    ):
        assert await GSuite(tmp_path / str(number), tokeninfo(email=email), domains=["*"]).reason() == reason, email


async def test_domains_are_compared_without_regard_to_case(tmp_path: Path) -> None:
    assert await GSuite(tmp_path, tokeninfo(email="ana@Acme.COM"), domains=["ACME.com"]).reason() == "allowed"


# --- hosted domains


async def test_a_hosted_domain_is_asked_for_at_userinfo(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(), user=google_userinfo(), hosted_domains=["acme.com"])
    answer = await check(it.world, TOKEN)
    assert answer.reason == "allowed"
    assert answer.headers["x-extauthz-user"] == "ana@acme.com"
    assert answer.headers["x-extauthz-client-id"] == GOOGLE_CLIENT
    assert (it.tokeninfo.asked, it.userinfo.asked) == ([TOKEN], [TOKEN])


HOSTED: list[Any] = [
    None,
    "",
    "evil.com",
    "sub.acme.com",
    "acme.com.evil.com",
    "notacme.com",
    " acme.com",
    7,
    True,
    {"acme.com": 1},
    ["x.com"],
]


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        *((google_userinfo(hd=domain), "token_user_not_allowed") for domain in HOSTED),
        (google_userinfo() | {"hd": None}, "token_user_not_allowed"),
        *((google_userinfo(sub=sub), "token_user_invalid") for sub in (None, "", "2", 110248495921238986420, [GOOGLE_USER])),
        ({"sub": GOOGLE_USER}, "token_user_not_allowed"),
        ({}, "token_user_invalid"),
        (Reason.TOKEN_INACTIVE, "token_inactive"),
        (Unavailable(Reason.ISSUER_UNAVAILABLE), "issuer_unavailable"),
    ],
    ids=named,
)
async def test_userinfo_must_name_the_same_user_and_a_hosted_domain(tmp_path: Path, user: Told, reason: str) -> None:
    it = GSuite(tmp_path, tokeninfo(), user=user, hosted_domains=["acme.com"])
    assert await it.reason() == reason


@pytest.mark.parametrize(("change", "reason"), [problem for problem in MISTAKES if "email" not in str(problem[0])], ids=named)
async def test_good_userinfo_excuses_no_error(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """Userinfo names no audience: alone it would take the token of any application."""
    it = GSuite(tmp_path, tokeninfo(**change), user=google_userinfo(), hosted_domains=["acme.com"])
    answer = await check(it.world, TOKEN)
    # Userinfo is asked about the same user: a subject that is another one is noticed before it is looked at itself.
    assert (answer.status, answer.reason) == (401, "token_user_invalid" if "sub" in change else reason)


async def test_the_hosted_domain_is_the_one_of_userinfo(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(hd="acme.com"), user=google_userinfo(hd=None), hosted_domains=["acme.com"])
    assert await it.reason() == "token_user_not_allowed"


async def test_the_address_is_the_one_that_tokeninfo_verified(tmp_path: Path) -> None:
    """Each of the two addresses is read together with what the same answer says of its being verified."""
    user = google_userinfo(email="eve@acme.com", email_verified=None)
    answer = await check(GSuite(tmp_path, tokeninfo(), user=user, hosted_domains=["acme.com"]).world, TOKEN)
    assert answer.decision.user == "ana@acme.com"


async def test_userinfo_need_not_repeat_the_address(tmp_path: Path) -> None:
    user = google_userinfo(email=None, email_verified=None)
    assert await GSuite(tmp_path, tokeninfo(), user=user, hosted_domains=["acme.com"]).reason() == "allowed"


@pytest.mark.parametrize("change", [{"aud": OTHER, "azp": OTHER}, {"exp": str(NOW)}], ids=named)
async def test_a_token_that_tokeninfo_rules_out_causes_no_second_question(tmp_path: Path, change: dict[str, Any]) -> None:
    it = GSuite(tmp_path, tokeninfo(**change), user=google_userinfo(), hosted_domains=["acme.com"])
    assert (await check(it.world, TOKEN)).status == 401
    assert it.userinfo.asked == []


# --- users by id


async def test_users_can_be_named_by_id(tmp_path: Path) -> None:
    users = {GOOGLE_USER: "boss@acme.com"}
    it = GSuite(tmp_path, tokeninfo(email="private@gmail.com", email_verified="false"), users=users)
    assert (await check(it.world, TOKEN)).headers["x-extauthz-user"] == "boss@acme.com"
    it.tokeninfo.answers["ya29.other"] = tokeninfo(sub="2")
    it.tokeninfo.answers["ya29.email"] = tokeninfo(sub="ana@acme.com")
    assert await it.reason("ya29.other") == "token_user_not_allowed"
    assert await it.reason("ya29.email") == "token_user_not_allowed"


async def test_a_service_account_is_no_user_even_if_its_id_is_named(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(email="robot@p.iam.gserviceaccount.com"), users={GOOGLE_USER: "ana@acme.com"})
    assert await it.reason() == "token_kind_wrong"


# --- an answer is a verdict on a token, for a while


async def test_each_request_is_decided_anew(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(), scopes=["SEARCH"])
    answers = [
        (await it.reason(line="POST /search"), await it.reason(line="POST /chat"), await it.reason(line="GET /search"))
        for _ in range(2)
    ]
    assert answers == [("allowed", "scope_missing", "method_not_allowed")] * 2
    assert (await check(it.world, TOKEN)).headers["x-extauthz-scopes"] == "SEARCH"
    assert (await check(it.world, TOKEN, x_glean_actas="ana@acme.com")).reason == "act_as_not_allowed"
    assert it.tokeninfo.asked == [TOKEN]


async def test_a_verdict_counts_for_a_minute_of_the_monotonic_clock(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo())
    clock = it.world.clock
    assert await it.reason() == "allowed"
    clock.ticks += 59.9
    clock.wall += 600
    assert await it.reason() == "allowed"
    assert it.tokeninfo.asked == [TOKEN]
    clock.wall = NOW
    clock.ticks += 0.1
    it.tokeninfo.answers[TOKEN] = Reason.TOKEN_INACTIVE
    assert await it.reason() == "token_inactive"
    assert it.tokeninfo.asked == [TOKEN] * 2


async def test_a_verdict_with_userinfo_counts_for_a_minute_too(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(), user=google_userinfo(), hosted_domains=["acme.com"])
    assert await it.reason() == "allowed"
    it.world.clock.advance(59.9)
    assert await it.reason() == "allowed"
    it.userinfo.answers[TOKEN] = google_userinfo(hd=None)
    it.world.clock.advance(0.1)
    assert await it.reason() == "token_user_not_allowed"
    assert it.userinfo.asked == [TOKEN] * 2


async def test_the_lifetime_of_a_verdict_can_be_set(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(), remote_verdict_ttl="5s")
    for seconds in (0, 4.9, 0.1):
        it.world.clock.advance(seconds)
        assert await it.reason() == "allowed"
    assert it.tokeninfo.asked == [TOKEN] * 2


async def test_a_verdict_ends_with_the_token(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(exp=str(NOW + 30)))
    assert await it.reason() == "allowed"
    it.world.clock.advance(29.9)
    assert await it.reason() == "allowed"
    it.world.clock.advance(0.1)
    assert await it.reason() == "token_expired"


@pytest.mark.parametrize(
    "answer", [Reason.TOKEN_INACTIVE, tokeninfo(aud=OTHER), tokeninfo(email_verified="false"), tokeninfo(exp="")], ids=named
)
async def test_a_refusal_counts_for_ten_seconds(tmp_path: Path, answer: Told) -> None:
    it = GSuite(tmp_path, answer)
    refused = await it.reason()
    it.tokeninfo.answers[TOKEN] = tokeninfo()
    it.world.clock.ticks += 9.9
    assert await it.reason() == refused != "allowed"
    assert it.tokeninfo.asked == [TOKEN]
    it.world.clock.ticks += 0.1
    assert await it.reason() == "allowed"
    assert it.tokeninfo.asked == [TOKEN] * 2


@pytest.mark.parametrize("reason", [Reason.ISSUER_UNAVAILABLE, Reason.OVERLOADED], ids=str)
async def test_trouble_is_not_remembered(tmp_path: Path, reason: Reason) -> None:
    it = GSuite(tmp_path, Unavailable(reason))
    answer = await check(it.world, TOKEN)
    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, reason.value, "1")
    assert await it.reason() == reason.value
    it.tokeninfo.answers[TOKEN] = tokeninfo()
    assert await it.reason() == "allowed"
    assert it.tokeninfo.asked == [TOKEN] * 3


async def test_a_question_that_is_turned_away_at_once_is_trouble_too(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo(), user=google_userinfo(), hosted_domains=["acme.com"])
    it.userinfo.shut = True
    assert await it.reason() == "overloaded"
    it.userinfo.shut, it.tokeninfo.shut = False, True
    assert await it.reason() == "overloaded"
    it.tokeninfo.shut = False
    assert await it.reason() == "allowed"


async def test_a_known_token_does_not_notice_trouble(tmp_path: Path) -> None:
    it = GSuite(tmp_path, tokeninfo())
    assert await it.reason() == "allowed"
    it.tokeninfo.answers[TOKEN] = Unavailable(Reason.ISSUER_UNAVAILABLE)
    it.world.clock.advance(59.9)
    assert await it.reason() == "allowed"
    it.world.clock.advance(0.1)
    assert await it.reason() == "issuer_unavailable"


async def test_a_token_that_ends_while_google_is_asked_is_refused(tmp_path: Path) -> None:
    class Slow(Remote):
        async def _answer(self, token: str) -> Any:
            it.world.clock.advance(10)
            return await super()._answer(token)

    it = GSuite(tmp_path, tokeninfo())
    slow = Slow({TOKEN: tokeninfo(exp=str(NOW + 10))})
    it.world = World(
        tmp_path / "slow",
        ROUTES,
        {"oauth": it.world.changes["oauth"]},
        introspectors={(GOOGLE, Verification.TOKENINFO): slow},
    )
    assert await it.reason() == "token_expired"


async def test_a_token_is_known_for_ten_minutes_beyond_what_the_answer_counts(tmp_path: Path) -> None:
    """Then it is a stranger to the budget again, half of which is kept for those who were good lately."""
    it = GSuite(tmp_path, tokeninfo())
    for seconds, questions in ((0, 1), (59, 1), (2, 2), (60 + 599, 3), (60 + 601, 4)):
        it.world.clock.advance(seconds)
        assert await it.reason() == "allowed"
        assert len(it.tokeninfo.asked) == questions
    assert it.tokeninfo.known == [False, True, True, False]


def test_a_check_waits_for_an_issuer_for_the_time_of_the_configuration(tmp_path: Path) -> None:
    """To the millisecond, in a loop whose time is made up."""
    it = GSuite(tmp_path, tokeninfo())
    it.world.reconfigure(server={"check_timeout": "150ms"})
    it.tokeninfo.go.clear()

    async def work() -> tuple[str, float]:
        reason = await it.reason()
        lasted = asyncio.get_running_loop().time()
        it.tokeninfo.go.set()
        await elapse(0.01)
        return reason, lasted

    reason, lasted = in_virtual_time(work)
    assert reason == "check_timeout"
    assert lasted == pytest.approx(0.15, abs=0.001)
