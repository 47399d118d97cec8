"""Keys of extauthz.yaml with another value in two configurations, and whether the findings tell what that does."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.config.document import KeyPath, dotted
from extauthz.config.effective import DEFAULT
from extauthz.config.loader import Configuration
from extauthz.config.values import Section
from extauthz.tools.diff_shape import SettingChange, SettingRole

_COMPUTED = (
    *("act_as", "auth_type", "identity", "mode", "routes", "scopes", "version"),
    *("server.max_token_size", "oauth.enabled", "oauth.scopes", "tokens.enabled", "tokens.prefix", "tokens.accept_prefixes"),
)
_NO_PART = (
    *("answers", "console", "decision_log", "grpc", "realm", "reload", "roles", "tracing"),
    *("server.listen", "server.socket_mode", "server.socket_group", "server.transport", "server.workers", "server.drain"),
    *("server.orphan_time", "server.ops", "server.ops_tls"),
)


def changed_settings(old: Configuration, new: Configuration) -> tuple[SettingChange, ...]:
    """Return the keys that differ, places of secrets among them; of no key the value."""
    documents = old.document(), new.document()
    return tuple(
        SettingChange(dotted(path), role_of(path), *(_place(document.lines, path, document.file) for document in documents))
        for path in _paths(old.settings, new.settings, ())
    )


def role_of(path: KeyPath) -> SettingRole:
    """Tell whether the findings know what a key decides; of a key that nobody has listed they do not."""
    key = dotted(path)

    def is_in(names: tuple[str, ...]) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in names)

    return SettingRole.COMPUTED if is_in(_COMPUTED) else SettingRole.NO_PART if is_in(_NO_PART) else SettingRole.NOT_COMPUTED


def _paths(old: object, new: object, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(old, Section) and isinstance(new, Section) and type(old) is type(new):
        for name in type(old).model_fields:
            yield from _paths(getattr(old, name), getattr(new, name), (*path, name))
    elif old != new:
        yield path


def _place(lines: dict[KeyPath, int], path: KeyPath, file: str) -> str:
    """Return where a key stands, or the section that is meant by it."""
    return f"{file}:{lines[path]}" if path in lines else DEFAULT
