"""What a reload makes of the decisions that are remembered, and what remembers them where there is no log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.config.loader import Configuration, load
from extauthz.core.model import Allow, Deny, HeaderEdits, Reason, Request
from extauthz.runtime.decision_log import DecisionLogs

REQUEST = Request("GET", "/a", "api.acme.com", {}, raw=True, decision_id="0" * 32)


def configured(folder: Path, recent: dict[str, int] | None = None, **log: Any) -> Configuration:
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001", "recent_decisions": recent or {}},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "decision_log": {"to": {"file": "decisions.jsonl"}} | log,
    }
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


async def records(logs: DecisionLogs) -> list[dict[str, Any]]:
    return (await logs.recent.find({}, limit=100, most_bytes=100_000)).records


@pytest.mark.parametrize("is_enabled", [True, False])
async def test_a_reload_keeps_what_is_remembered_and_takes_sizes_and_fields(tmp_path: Path, is_enabled: bool) -> None:
    logs = DecisionLogs(configured(tmp_path), enabled=is_enabled)
    try:
        before = logs.recent
        assert logs.recorder is not None
        logs.recorder.record(REQUEST, Deny(Reason.ROUTE_UNKNOWN), 0.0)
        logs.recorder.record(REQUEST, Allow(Reason.PUBLIC, "r", HeaderEdits((), ())), 0.0)
        logs.prepare(configured(tmp_path, {"allows": 0}, path=False))
        logs.discard()
        assert len(await records(logs)) == 2
        assert "path" in (await records(logs))[0]
        logs.prepare(configured(tmp_path, {"allows": 0}, path=False))
        closing = logs.commit()
        if closing is not None:
            await closing
        assert logs.recent is before
        (record,) = await records(logs)
        assert (record["reason"], "path" in record) == ("route_unknown", False)
    finally:
        logs.close()


async def test_without_a_log_decisions_are_remembered_all_the_same(tmp_path: Path) -> None:
    logs = DecisionLogs(configured(tmp_path, enabled=False))
    assert (logs.current, logs.recorder) == (None, logs.recent)
    logs.prepare(configured(tmp_path, {"allows": 0, "denials": 0}, enabled=False))
    logs.commit()
    assert logs.recorder is None


async def test_sizes_alone_count_with_a_reload_too(tmp_path: Path) -> None:
    logs = DecisionLogs(configured(tmp_path))
    try:
        assert logs.current is not None
        logs.prepare(configured(tmp_path, {"allows": 0, "denials": 0}))
        assert logs.commit() is None
        assert (logs.current.recent, logs.recent.keeps_any) == (None, False)
        logs.prepare(configured(tmp_path, {"allows": 0, "denials": 1}))
        assert logs.commit() is None
        for _ in range(2):
            logs.current.record(REQUEST, Deny(Reason.ROUTE_UNKNOWN), 0.0)
        assert len(await records(logs)) == 1
    finally:
        logs.close()


@pytest.mark.parametrize("count", [-1, 10_001])
def test_what_is_remembered_has_a_bound(tmp_path: Path, count: int) -> None:
    with pytest.raises(Exception, match=r"recent_decisions\.denials") as caught:
        configured(tmp_path, {"denials": count})
    assert type(caught.value).__name__ == "ConfigurationError"
