"""The vectors of requests, and the world that each is checked in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import vectors
from tests.support.vectors import Case, VectorWorld
from tests.support.world import NOW

TABLES = ("paths", "routes", "credentials", "act_as", "order", "answers", "headers", "tokens", "jwt", "monitor")
FILES = {name: vectors.load(name) for name in (*TABLES, "configuration")}
REQUEST = {"about", "send", "with", "form", "host", "message", "bytes", "at", "token", "jwt"}
EXPECTED = {
    *("reason", "status", "route", "user", "actor", "auth_type", "scopes", "sets", "also_sets", "removed", "removes", "passes"),
    *(
        "challenge",
        "challenge_scopes",
        "headers",
        "absent",
        "told",
        "error",
        "message_has",
        "message_is",
        "plain_body",
        "answered_by",
    ),
    *("metadata", "code"),
}
PATH = {"about", "path", "form", "segments", "canonical", "same_as", "reason"}
CASES = [case for name in TABLES for case in vectors.cases(name, FILES[name], REQUEST | EXPECTED | PATH)]
CHECKS = [case for case in CASES if "path" not in case.data]
NOT_RECORDED = frozenset({"act_as-local-part-65-64 characters", "act_as-domain-124- <<a*63>>.com", "act_as-domain-149-254 bytes"})
"""Whoever is named in these could be a token: such a request is recorded nowhere."""
Worlds = Callable[[Case], VectorWorld]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """Return the world of a case; the cases of a group share it, and so see each other's tokens in memory."""
    made: dict[tuple[str, str], VectorWorld] = {}

    def world_of(case: Case) -> VectorWorld:
        key = (case.file, case.group)
        if key not in made:
            made[key] = vectors.build(tmp_path_factory.mktemp(case.group), case.world, case.tokens)
        return made[key]

    return world_of


def prepared(case: Case, world: VectorWorld) -> dict[str, Any]:
    """Make the token of the case itself, and let it be the hour of the case."""
    world.world.clock.wall = NOW + case.data.get("at", 0)
    if "token" in case.data or "jwt" in case.data:
        kind = "jwt" if "jwt" in case.data else "token"
        name = f"{case.group}-{case.number}"
        if name not in world.texts:
            world.make(name, {"jwt": case.data["jwt"]} if kind == "jwt" else case.data["token"])
        own = {key: value for key, value in case.data.items() if key not in ("jwt", "token")}
        return vectors.filled(own, lambda text: text.replace("<<own>>", f"<<{name}>>"))  # type: ignore[no-any-return]
    return dict(case.data)
