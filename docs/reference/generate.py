"""Writes the pages of docs/reference/, and a part of docs/architecture.md, from the code; run by `make reference`."""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.reference import api_page, rooms, schemas
from extauthz.cli import COMMANDS, main
from extauthz.config.lints import LASTING, Lint
from extauthz.config.oauth import OAuthListSection
from extauthz.config.settings import Settings
from extauthz.config.units import duration, size
from extauthz.telemetry.metric_table import BUCKETS, CONSOLE, DEFINITIONS, SECONDS, Definition
from extauthz.transport.grpc.grpcio import VISIBLE
from extauthz.transport.grpc.refusals import RefusalReason

HERE = Path(__file__).parent
KEYS = HERE / "keys.yaml"
ROUTE_KEYS = HERE / "route_keys.yaml"
EXAMPLES = HERE.parents[1] / "config" / "schema"
"""Where the schemas stand beside the examples, which name them, and from where `extauthz init` takes both."""
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {"MiB": 1024.0**2, "KiB": 1024.0, "B": 1.0}
VERTICAL = r"\|"
HEAD = "<!-- Written by `make reference` from the code: change it there. -->\n\n"


def metrics() -> str:
    """Return the page of the metrics."""
    rows, of_console = ([_row(each) for each in definitions] for definitions in (DEFINITIONS, CONSOLE))
    buckets = ", ".join(f"{bound * 1e6:g} µs" if bound < 0.001 else f"{bound * 1e3:g} ms" for bound in BUCKETS)
    return (
        f"{HEAD}# Metrics\n\n"
        "What `/metrics` shows on the ops listener, in the text format of Prometheus or as OpenMetrics. Label values come from\n"
        "enums, from the configuration and its files, from the store (`number` and `mac` of the audit) and from the version and the\n"
        "workers of the program, never from a request. With several workers the parent shows one figure for all of them: the last\n"
        "column says which. The counts of a worker that has ended stay.\n\n"
        "| name | type | labels | meaning | of several workers |\n|---|---|---|---|---|\n"
        f"{''.join(rows)}\n"
        f"Buckets of `extauthz_check_duration_seconds`: {buckets}.\n\n"
        "Reasons of `extauthz_transport_refusals_total`, and what the log says of each, at most once a minute:\n\n"
        "| reason | of grpcio too | what the log says |\n|---|---|---|\n"
        f"{''.join(_refusal(each) for each in RefusalReason)}\n"
        "grpcio refuses the others in its C core, which tells nobody: no figure and no line.\n\n"
        "The admin console shows its own on `console.ops`; `page` is the pattern of a path, as `/tokens/{token_id}`:\n\n"
        "| name | type | labels | meaning | of several workers |\n|---|---|---|---|---|\n"
        f"{''.join(of_console)}\n"
        f"Buckets of `extauthz_console_request_seconds`: {', '.join(f'{bound:g} s' for bound in SECONDS)}.\n\n"
        "Beside them stand the process and Python metrics of the Prometheus client; with several workers these are the parent's.\n"
    )


def _row(each: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"| `{each.name}` | {each.type} | {labels} | {each.text} | {each.across} |\n"


def _refusal(reason: RefusalReason) -> str:
    return f"| `{reason}` | {'yes' if reason in VISIBLE else ''} | {reason.hint} |\n"


def configuration() -> str:
    """Return the page of the keys of extauthz.yaml: names, defaults and types from the models, meanings and examples from keys.yaml."""
    rows = [_key_row(path, field) for path, field in fields(Settings)]
    return (
        f"{HEAD}# Configuration\n\n"
        "Every key of `extauthz.yaml`. Durations are written with a unit (`ms`, `s`, `m`, `h`, `d`), sizes as `16KiB`; a secret is\n"
        "`{env: NAME}` or `{file: PATH}`. `x[]` stands for each entry of a list or a mapping: under `answers.reasons[]` are the keys\n"
        "of the answer for one reason, `reasons: {route_unknown: {status: 404}}`. Relative paths are relative to the file.\n"
        "[`config/extauthz.yaml`](../../config/extauthz.yaml) shows all of them in place, "
        "[`config/several-providers.yaml`](../../config/several-providers.yaml) those of several providers. The keys of route\n"
        "files stand in [routes.md](../routes.md).\n\n"
        f"| key | meaning | default | unit | example |\n|---|---|---|---|---|\n{''.join(rows)}"
    )


@functools.cache
def told_keys(file: Path = KEYS) -> dict[str, dict[str, str]]:
    """Read what keys.yaml says, or the file of the keys of routes, by the dotted name of the key."""
    return dict(yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))  # noqa: S506 - texts only


def fields(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield the path of every key of a model, of sections within it, and of the entries of its lists."""
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        path = (*prefix, _named(name, field))
        if not inner:
            yield path, field
        for one in inner:
            if one is OAuthListSection:
                # Its entries have the keys of the section for one provider.
                yield (*path, "providers"), OAuthListSection.model_fields["providers"]
            else:
                yield from fields(one, path)


def _key_row(path: tuple[str, ...], field: FieldInfo) -> str:
    name = ".".join(path)
    told = told_keys().get(name, {})
    default = told.get("default") or _default(field)
    unit = _unit(field) or told.get("unit", "")
    example = f"`{path[-1]}: {told['example']}`" if "example" in told else ""
    cells = (f"`{name}`", told.get("meaning", ""), default, unit, example)
    return f"| {' | '.join(cell.replace('|', VERTICAL) for cell in cells)} |\n"


def _unit(field: FieldInfo) -> str:
    """Tell in what a value is written, as far as its type knows."""
    read = {getattr(how, "func", None) for how in _metadata(field)}
    if duration in read or size in read:
        return "duration" if duration in read else "size"
    parts = (field.annotation, *typing.get_args(field.annotation))
    words = [word for part in parts if typing.get_origin(part) is typing.Literal for word in typing.get_args(part)]
    if bool in parts:
        return "`true`, `false`"
    # Beside its words a key may take other values, which only keys.yaml can describe.
    return ", ".join(f"`{word}`" for word in words) if len(words) > 1 and float not in parts else ""


def _named(name: str, field: FieldInfo) -> str:
    """Name a key as a path does: x[] stands for each entry of a list, or of a mapping, whose entries are sections."""
    many = typing.get_origin(field.annotation) in (list, dict)
    return f"{name}[]" if many and _models(field.annotation) else name


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    read = {getattr(how, "func", None) for how in _metadata(field)}
    if duration in read or size in read:
        return f"`{_with_unit(value, _SECONDS if duration in read else _BYTES)}`"
    return f"`{json.dumps(value, default=str)}`"


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """Yield the validators of a field, those of an optional value too."""
    yield from field.metadata
    for part in typing.get_args(field.annotation):
        yield from getattr(part, "__metadata__", ())


def _with_unit(value: float, units: dict[str, float]) -> str:
    """Write a number in the largest unit that keeps it whole."""
    for unit, worth in units.items():
        if value >= worth and (value / worth).is_integer():
            return f"{value / worth:g}{unit}"
    return f"{value:g}{list(units)[-1]}" if value else f"0{list(units)[-1]}"


def commands() -> str:
    """Return the page of the commands: their own help, one after the other."""
    pages = [text for name in COMMANDS for text in _help(main, name)]
    return (
        f"{HEAD}# Commands\n\nExit codes: 0 done; 1 refused, not found, or the world does not play along; 2 wrong flags; 3 problems in the\n"
        f"configuration.\n\n{''.join(pages)}"
    )


def _help(group: click.Group, name: str, parent: click.Context | None = None) -> Iterator[str]:
    parent = parent or click.Context(group, info_name="extauthz", terminal_width=100, **group.context_settings)
    command = group.get_command(parent, name)
    if command is None:
        raise KeyError(name)
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from _help(command, inner, context)


def api() -> str:
    """Return the page of the console's HTTP API."""
    return f"{HEAD}{api_page.page()}"


def lints() -> str:
    """Return the page of the lints: their names, what each finds, and how one is silenced."""
    rows = [f"| `{lint}` | {lint.meaning} | {'no' if lint in LASTING else 'yes'} |\n" for lint in Lint]
    return (
        f"{HEAD}# Lints\n\n"
        "What `extauthz config check` warns of, by the name that stands in brackets behind the warning. Warnings change nothing of what\n"
        "is served; with `--strict` the command exits with 1 if there is one.\n\n"
        "A comment silences a lint where it stands, on its line or on a line of its own above it, and says why:\n\n"
        "```yaml\nroutes:\n"
        "  # extauthz: ignore anonymous-write: the sender signs what it sends\n"
        '  - {match: "POST /hooks/payment", public: true}\n```\n\n'
        "A comment without a reason, or with a name that no lint has, is an error of `config check`; `serve` reads no such comments and\n"
        "logs its warnings as ever.\n\n"
        f"| lint | what it finds | can be silenced |\n|---|---|---|\n{''.join(rows)}"
    )


def settings_schema() -> str:
    """Return the JSON Schema of extauthz.yaml."""
    return schemas.text_of(schemas.settings_schema(told_keys()))


def routes_schema() -> str:
    """Return the JSON Schema of a route file."""
    return schemas.text_of(schemas.routes_schema(told_keys(ROUTE_KEYS)))


SCHEMAS = {"settings.schema.json": settings_schema, "routes.schema.json": routes_schema}
PAGES = {
    "metrics.md": metrics,
    "configuration.md": configuration,
    "commands.md": commands,
    "api.md": api,
    "lints.md": lints,
    **SCHEMAS,
}

if __name__ == "__main__":
    for page_name, page in PAGES.items():
        (HERE / page_name).write_text(page(), encoding="utf-8")
    for schema_name, schema in SCHEMAS.items():
        (EXAMPLES / schema_name).write_text(schema(), encoding="utf-8")
    rooms.PAGE.write_text(rooms.page(rooms.PAGE.read_text(encoding="utf-8"), rooms.section()), encoding="utf-8")
