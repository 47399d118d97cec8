"""A store that was migrated while sidecars of the release before serve: the upgrade of docs/deploy.md, with schemas to come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from click.testing import CliRunner

from extauthz.adapters.store import schema
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.rows import REVISION, SERVED
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import fingerprint
from extauthz.errors import StoreError, Unavailable
from extauthz.runtime.store import OpenedStore, open_store, verifier_of
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.next_releases import NEXT, SECOND_NEXT, migrate
from tests.support.postgresql import Place
from tests.support.waiting import until
from tests.support.world import NOW, PEPPER, StillClock

pytest_plugins = ["tests.support.postgresql"]

RULES = TokenRules("glean", frozenset({"SEARCH"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))
ROOT = Change(NOW, "root")
KEY = AuditKey.of("p1", PEPPER)
SETTINGS = """\
version: 1
server: {{listen: 127.0.0.1:9001, ops: null}}
tokens: {{store: "{store}", peppers: [{{id: p1, file: pepper}}], poll_interval: 250ms}}
act_as: {{allow: ["*@acme.com"]}}
scopes: [SEARCH]
routes: [routes.yaml]
"""


@dataclass
class Issuer:
    """Whoever makes tokens in a store."""

    place: Place
    made: int = 0

    def token(self) -> tuple[str, str]:
        """Make a token as this release does; return its text and its id."""
        self.made += 1
        order = TokenRequest("a token", AuthType.USER, frozenset({"SEARCH"}), NOW - 60, "root", NOW + 3600, "ana@acme.com")
        entropy = hashlib.sha384(str(self.made).encode()).digest()
        text, record = issue(order, RULES, pepper_id="p1", pepper=PEPPER, entropy=entropy)
        with self.place.opened(KEY) as store:
            store.add(record, fingerprint(PEPPER))
        return text.text, record.id

    def revoke(self, token_id: str) -> None:
        """Revoke a token as this release does."""
        with self.place.opened(KEY) as store:
            assert store.revoke([token_id], "lost", ROOT) == (token_id,)


@dataclass
class Sidecar:
    """What serves issued tokens of a store."""

    opened: OpenedStore
    verifier: IssuedVerifier
    clock: StillClock

    async def told(self, token: str) -> str:
        """Return what is told of a token."""
        try:
            found: Any = self.verifier.verify(token, self.clock.now())
            evidence = await found if isinstance(found, Awaitable) else found
        except Unavailable as unavailable:
            return unavailable.reason.value
        assert isinstance(evidence, Identity | Reason)
        return "good" if isinstance(evidence, Identity) else evidence.value

    async def tells(self, token: str, expected: str) -> None:
        """Wait until this is told of a token."""

        async def is_told() -> bool:
            return await self.told(token) == expected

        await until(is_told)


@pytest.fixture
def configuration(place: Place, tmp_path: Path) -> Configuration:
    (tmp_path / "pepper").write_bytes(PEPPER)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    where = f"sqlite:///{place.where}" if isinstance(place.where, Path) else place.where
    (tmp_path / "extauthz.yaml").write_text(SETTINGS.format(store=where))
    return load(tmp_path / "extauthz.yaml")


@asynccontextmanager
async def serving(configuration: Configuration) -> AsyncIterator[Sidecar]:
    """Serve as a process of this release does; raises StoreError for a store that it cannot serve."""
    clock = StillClock()
    async with AsyncExitStack() as stack:
        opened = await open_store(configuration, configuration.read_secrets({}), stack, clock=clock)
        assert opened is not None
        verdicts = VerdictCache(Kind.ISSUED, bytes(32), lifetime=660.0, clock=clock)
        verifier = verifier_of(configuration, opened.reader, opened.feed, {"p1": PEPPER}, verdicts, clock=clock)
        task = asyncio.create_task(opened.follower.run())
        try:
            await until(lambda: opened.feed.ids.complete)
            yield Sidecar(opened, verifier, clock)
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_sidecars_serve_on_while_the_next_release_is_rolled_out(
    place: Place, configuration: Configuration, tmp_path: Path
) -> None:
    """Migrate; then replace sidecars one by one: those of this release serve known and new tokens, also when they start again."""
    issuer = Issuer(place)
    known, known_id = issuer.token()
    async with serving(configuration) as running:
        assert await running.told(known) == "good"
        migrate(place, NEXT, tmp_path)
        position = running.opened.feed.position
        new, _ = issuer.token()
        place.run("UPDATE tokens SET label = 'made by the next release' WHERE created_by = 'root'")
        assert await running.told(new) == "good"
        running.clock.advance(61)
        assert [await running.told(text) for text in (known, new)] == ["good", "good"]
        async with serving(configuration) as started:
            assert [await started.told(text) for text in (known, new)] == ["good", "good"]
            issuer.revoke(known_id)
            for sidecar in (running, started):
                await sidecar.tells(known, "token_revoked")
                assert await sidecar.told(new) == "good"
        assert running.opened.feed.position == position + 2
        assert not running.opened.feed.rewound


async def test_a_schema_beyond_the_next_one_is_refused_by_running_sidecars(
    place: Place, configuration: Configuration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New tokens at once, known ones after `max_staleness`; and all is well again when the store is what it was."""
    issuer = Issuer(place)
    (known, known_id), (new, _) = issuer.token(), issuer.token()
    async with serving(configuration) as running:
        assert await running.told(known) == "good"
        migrate(place, SECOND_NEXT, tmp_path)
        await until(lambda: lost(caplog) == {"has schema 0005"})
        assert await running.told(new) == "store_unavailable"
        assert await running.told(known) == "good"
        with pytest.raises(Unavailable):
            await running.opened.usage.record_usage({known_id: (NOW, "192.0.2.0/24")})
        assert place.rows("SELECT * FROM token_usage") == []
        running.clock.advance(600)
        assert [await running.told(text) for text in (known, new)] == ["store_stale", "store_unavailable"]
        set_revision(place, NEXT)
        for text in (new, known):
            await running.tells(text, "good")
        assert await running.opened.usage.record_usage({known_id: (NOW, "192.0.2.0/24")}) == 1


def lost(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return the schemas for which contact with the change feed was lost."""
    causes = [str(getattr(line, "cause", "")) for line in caplog.records if line.message == "change feed of the token store lost"]
    return {cause.partition(",")[0].removeprefix("the token store ") for cause in causes if "'extauthz store migrate'" in cause}


@pytest.mark.parametrize(
    ("revision", "hint"),
    [
        ("0001", "run 'extauthz store migrate'"),
        (SECOND_NEXT, "use the release that ran 'extauthz store migrate' last, or a later one"),
    ],
)
async def test_a_schema_out_of_the_range_is_refused_at_a_start_and_by_commands(
    place: Place, configuration: Configuration, tmp_path: Path, revision: str, hint: str
) -> None:
    expected = f"the token store has schema {revision}, this release serves {REVISION} and {NEXT}: {hint}"
    if revision == "0001":
        set_revision(place, revision)
    else:
        migrate(place, revision, tmp_path)
    with pytest.raises(StoreError) as caught:
        async with serving(configuration):
            pass
    assert str(caught.value) == expected
    for command in (["store", "status"], ["token", "list"], ["token", "revoke", "a" * 12, "--why", "lost", "--yes"]):
        result = await asyncio.to_thread(run, configuration, *command)
        assert (result.exit_code, expected in result.output) == (1, True), result.output


def test_commands_of_this_release_read_and_write_the_next_schema(
    place: Place, configuration: Configuration, tmp_path: Path
) -> None:
    """A revocation cannot wait for the end of an upgrade; what this release leaves out is NULL."""
    migrate(place, NEXT, tmp_path)
    made = run(
        configuration, "token", "create", "--description", "a token", "--permission", "USER", "--user", "ana@acme.com",
        "--scope", "SEARCH", "--expires", "30d",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    ((token_id, label),) = place.rows("SELECT id, label FROM tokens")
    assert label is None
    for command in (
        ["token", "show", token_id],
        ["token", "rotate", token_id, "--overlap", "1h"],
        ["token", "revoke", token_id, "--why", "lost", "--yes"],
        ["token", "list", "--all"],
        ["audit", "verify"],
    ):
        result = run(configuration, *command)
        assert result.exit_code == 0, (command, result.output)
    assert len(place.rows("SELECT id FROM tokens")) == 2
    status = run(configuration, "store", "status")
    assert (status.exit_code, NEXT in status.output) == (0, True), status.output


def test_migrating_again_by_this_release_leaves_the_next_schema(place: Place, configuration: Configuration, tmp_path: Path) -> None:
    """As the hook of a chart does that goes back to the release before."""
    migrate(place, NEXT, tmp_path)
    result = run(configuration, "store", "migrate")
    assert (result.exit_code, result.stdout.strip().endswith(f"schema {NEXT}")) == (0, True), result.output
    assert place.rows("SELECT label FROM tokens") == []


def test_the_range_is_this_schema_and_the_one_behind_it() -> None:
    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert scripts.get_heads() == [REVISION]
    assert [int(revision) - int(REVISION) for revision in SERVED] == [0, 1]


def set_revision(place: Place, revision: str) -> None:
    """Say of a store that it has another schema."""
    place.run(f"UPDATE alembic_version SET version_num = '{revision}'")  # noqa: S608 - our own text


def run(configuration: Configuration, *arguments: str) -> Any:
    """Run a command of this release."""
    return CliRunner().invoke(main, [*arguments, "--config", str(configuration.file)])
