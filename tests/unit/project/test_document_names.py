"""Every name that a page tells is one that the program, or another one that the page is about, has."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import ValidationError

from docs.reference import generate
from extauthz.admin.rights import Role
from extauthz.cli import COMMANDS, main
from extauthz.config.routes import RouteFile, RouteLine
from extauthz.config.settings import Settings
from extauthz.config.upstream import UpstreamSection
from extauthz.console.api.document import document
from extauthz.console.api.values import LONGEST
from extauthz.core.model import Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.initial.files import SUITE, NewApi, texts_of
from extauthz.telemetry.conditions import ConditionKey
from extauthz.telemetry.decision_record import RecordField
from extauthz.telemetry.metric_table import TABLE
from extauthz.transport.grpc.refusals import RefusalReason
from tests.support.documents import placed
from tests.support.metric_names import LABELS
from tests.support.project import ROOT, TESTS

PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOREIGN: dict[str, list[str]] = yaml.safe_load((TESTS / "data" / "foreign_names.yaml").read_text())
DOCTOR = "".join(path.read_text() for path in (ROOT / "extauthz" / "doctor").glob("*.py"))
FINDINGS = {
    *re.findall(r'"((?:envoy|file|store|server|issuer)\.[a-z_0-9]+)"', DOCTOR),
    *re.findall(r'\b(?:ok|warning|problem)\(\s*"([a-z_.]+)"', DOCTOR),
    # Made of the key that Envoy's configuration has.
    "envoy.allowed_headers",
    "envoy.disallowed_headers",
}

VALUES = {"decision": {"allow", "deny", "would_deny"}, "reason": {reason.value for reason in Reason}}
"""What the labels of extauthz_checks_total may be."""


def named(page: Path) -> str:
    """Name a page in the list of the tests."""
    return str(page.relative_to(ROOT))


# Metrics


def wrong_metrics(text: str) -> list[str]:
    """Return what looks like a metric of ours, or a label of one, and is not."""
    known = LABELS.keys() | {definition.name for definition in TABLE.values()} | set(FOREIGN["database_roles"])
    wrong = [name for name in re.findall(r"\bextauthz_[a-z_]+", text) if name not in known]
    for name, selected in re.findall(r"\b(extauthz_[a-z_]+)\{([^}]*)\}", text):
        labels = {*LABELS.get(name, ()), "instance", "job"}
        wrong += [f"{name}{{{label}}}" for label in re.findall(r"([a-z_]+) ?[=!]", selected) if label not in labels]
        values = VALUES if name == "extauthz_checks_total" else {}
        told = re.findall(r'([a-z_]+) ?!?="([^"]*)"', selected)
        wrong += [f'{name}{{{label}="{value}"}}' for label, value in told if value not in values.get(label, {value})]
    return wrong


ALERTS = set(re.findall(r"alert: (Extauthz\w+)", (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")))


def wrong_alerts(text: str) -> list[str]:
    """Return what looks like an alert of ours and is none."""
    return [name for name in re.findall(r"\bExtauthz[A-Z]\w+", text) if name not in ALERTS]


def test_wrong_metrics_are_noticed() -> None:
    assert wrong_alerts("ExtauthzAbsent ExtauthzGone") == ["ExtauthzGone"]
    assert wrong_metrics("`extauthz_checks_waiting`") == ["extauthz_checks_waiting"]
    assert wrong_metrics('`extauthz_checks_total{cause="x"}`') == ["extauthz_checks_total{cause}"]
    assert wrong_metrics('`extauthz_checks_total{reason="scope_lost"}`') == ['extauthz_checks_total{reason="scope_lost"}']
    good = 'rate(extauthz_checks_total{decision="would_deny", instance="a"}[1h]), extauthz_check_duration_seconds_bucket'
    assert wrong_metrics(good) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_metric_and_alert_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (wrong_metrics(text), wrong_alerts(text)) == ([], [])


# Keys, reasons, fields, labels, findings of doctor


def key_paths() -> set[str]:
    """Return every key and section of the configuration, dotted, with and without the marks of entries."""
    marked = {path[:end] for path, _ in generate.fields(Settings) for end in range(1, len(path) + 1)}
    return {".".join(path) for path in marked} | {".".join(path).replace("[]", "") for path in marked}


def api_names() -> set[str]:
    """Return every member, parameter and fixed word of the console's API."""

    def found(value: Any) -> Iterator[str]:
        match value:
            case dict():
                yield from value.get("properties", ())
                yield from (word for word in value.get("enum", ()) if isinstance(word, str))
                yield from [value["name"]] if "in" in value else []
                for inner in value.values():
                    yield from found(inner)
            case list():
                for inner in value:
                    yield from found(inner)

    return {*found(document((), LONGEST)), *Role}


KEYS = key_paths()
WORDS = (
    {part for key in KEYS for part in key.split(".")}
    | {str(value) for reason in Reason for value in (reason, reason.public_name)}
    | {str(reason) for reason in RefusalReason}
    | {str(field) for field in RecordField}
    | {str(key) for key in ConditionKey}
    | {label for definition in TABLE.values() for label in definition.labels}
    | {*RouteLine.model_fields, *RouteFile.model_fields, *UpstreamSection.model_fields}
    | {part for finding in FINDINGS for part in finding.split(".")}
    | {*PROVIDERS, *FOREIGN["database_roles"]}
    | api_names()
    | {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    | {str(role) for role in Role}
    | set(re.findall(r'"(?:name": "|properties": {"|}, ")?([a-z]+(?:_[a-z]+)+)"', json.dumps(document(["SEARCH"], 1))))
)
FOREIGN_WORDS = {word for words in FOREIGN.values() for word in words}


def wrong_words(text: str) -> list[str]:
    """Return what stands in backticks and is neither a name of ours nor one of the programs around us."""
    wrong = []
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        name = quoted.partition(":")[0] if re.match(r"[a-z_]+: ", quoted) else quoted
        if found := re.fullmatch(r"([a-z_]+)\.[a-z_.\[\]]+", name):
            section_or_finding = found[1] in Settings.model_fields or found[1] in {"file", "store", "issuer"}
            if section_or_finding and name not in KEYS | FINDINGS | FOREIGN_WORDS:
                wrong.append(quoted)
        elif re.fullmatch(r"(?!extauthz_)[a-z0-9]+(?:_[a-z0-9]+)+", name) and name not in WORDS | FOREIGN_WORDS:
            wrong.append(quoted)
    return wrong


def test_wrong_names_are_noticed() -> None:
    text = "`limits.verdict`, `tokens.peppers[].id`, `envoy.time_out`, `envoy.timeout`, `max_stalenes: 5m`, `token_bad`"
    assert wrong_words(text) == ["limits.verdict", "envoy.time_out", "max_stalenes: 5m", "token_bad"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_key_reason_field_and_finding_that_a_page_names_is_there(page: Path) -> None:
    assert wrong_words(page.read_text(encoding="utf-8")) == []


PATHS = [path for path, _ in generate.fields(Settings) if path[-1] not in {*RouteLine.model_fields, *UpstreamSection.model_fields}]


def wrong_values(text: str) -> list[str]:
    """Return what is written as `key: value` with a key of ours and is accepted by none of the keys that are called so."""
    wrong = []
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        name, _, value = quoted.partition(": ")
        paths = [path for path in PATHS if f".{'.'.join(path)}".endswith(f".{name}")]
        if value and paths and quoted not in FOREIGN["settings"] and not any(accepts(path, value) for path in paths):
            wrong.append(quoted)
    return wrong


def accepts(path: tuple[str, ...], value: str) -> bool:
    """Tell whether the configuration may have this value, as YAML writes it, at a path."""
    try:
        Settings.model_validate(placed(path, yaml.safe_load(value)))
    except ValidationError:
        return False
    return True


def test_wrong_values_are_noticed() -> None:
    text = "`drain: 10`, `server.drain: 10s`, `feed: pull`, `tokens.feed: poll`, `known_ids: 0`, `deny: true`, `match: x`"
    assert wrong_values(text) == ["drain: 10", "feed: pull"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_value_that_a_page_gives_a_key_is_accepted(page: Path) -> None:
    assert wrong_values(page.read_text(encoding="utf-8")) == []


def test_foreign_names_are_used_and_are_not_ours() -> None:
    """What no page names any more would hide a name of ours that is wrong."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [word for word in FOREIGN_WORDS if word not in text] == []
    assert set(FOREIGN["database_roles"]) >= FOREIGN_WORDS & WORDS


# Commands


def spoken(text: str) -> Iterator[str]:
    """Yield each command of a page, in prose or in a block, from its first word behind `extauthz`."""
    for block in re.findall(r"^ *```(?:console|sh|bash)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        # A line of a block may go on in the next one.
        yield from re.findall(r"(?:^ *\$? ?|\| )extauthz ([a-z-].*)$", block.replace("\\\n", " "), re.MULTILINE)
    yield from re.findall(r"\| extauthz ([a-z-][^`\n]*)`", text)
    yield from re.findall(r"docker compose run --rm admin ([a-z-][^`\n]*)", text)
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`", text):
        words = quoted.split()
        if words and words[0] == "extauthz" and words[1:]:
            yield quoted.partition(" ")[2]
        elif words[1:] and words[0] in COMMANDS and quoted not in FOREIGN["log_events_and_spans"]:
            yield quoted


def wrong_command(line: str) -> str:
    """Return what a command line has that the program has not, or nothing."""
    # Prose abbreviates ("--for …"), shells redirect.
    words = re.split(r" (?:[|>&]|# )", line, maxsplit=1)[0].split()
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group) and words and not words[0].startswith(("-", "…")):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return name
        command = found
    flags = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
    return " ".join(word for word in unknown if word not in flags | {"--help"})


def all_flags(group: click.Group) -> set[str]:
    """Return the flags of every command."""
    context, flags = click.Context(group), set()
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        flags |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        flags |= all_flags(command) if isinstance(command, click.Group) else set()
    return flags


FLAGS = all_flags(main) | {"--help"}


def wrong_flags(text: str) -> list[str]:
    """Return flags that stand alone in prose and that no command has."""
    quoted = re.findall(r"(?<!`)`(--[a-z-]+)[^`\n]*`", text)
    return [flag for flag in quoted if flag not in FLAGS]


def test_wrong_commands_are_noticed() -> None:
    block = "```console\n$ extauthz serve --fast > log\n$ ls\n```\n"
    text = f"`extauthz token mint`, `token create --user-name x`\n{block}`audit verify`, `--user-id`"
    assert [(line, wrong_command(line)) for line in spoken(text)] == [
        ("serve --fast > log", "--fast"),
        ("token mint", "mint"),
        ("token create --user-name x", "--user-name"),
        ("audit verify", ""),
    ]
    assert wrong_flags(text) == ["--user-id"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_and_flag_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [(line, wrong) for line in spoken(text) if (wrong := wrong_command(line))] == []
    assert wrong_flags(text) == []


# Files, targets and links


FIRST = NewApi(name="orders", scopes=("READ",), header_prefix="x-extauthz-", domains=("acme.com",))
MADE = {str(path) for path in (*texts_of(FIRST), SUITE)} | {"config/tests/people.yaml"}
"""Files that are there after `extauthz init`, as the tutorial types it, and one that docs/tools.md has the reader write."""


def wrong_files(text: str) -> list[str]:
    """Return files of this project, and of the tutorial, that are named in backticks and are not there."""
    folders = "benchmarks|config|deploy|docs|envoy|extauthz|requirements|tests"
    named = re.findall(rf"(?<!`)`((?:{folders})/[A-Za-z0-9_./-]*)`", text)
    return [name for name in named if name not in MADE and not (ROOT / name).exists()]


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def wrong_targets(text: str) -> list[str]:
    """Return targets of make that the Makefile lacks."""
    named = re.findall(r"(?:`|^ *\$ )make ([a-z-]+)", text, re.MULTILINE)
    return [name for name in named if name not in TARGETS]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = "".join(sign for sign in plain if sign in " -_" or unicodedata.category(sign)[0] in "LN")
        name = kept.replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


def wrong_links(page: Path, text: str) -> list[str]:
    """Return local links of a page to files or headings that are not there."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = page if not target else (page.parent / target).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(link)
    return wrong


def test_wrong_files_targets_and_links_are_noticed() -> None:
    links = "[a](tokens.md#audit) [b](tokens.md#nowhere) [c](none.md) [d](#none)"
    text = f"`docs/none.md` `docs/tokens.md` `make tests` `make test` {links}"
    assert wrong_files(text) == ["docs/none.md"]
    assert wrong_targets(text) == ["tests"]
    assert wrong_links(ROOT / "docs" / "reference.md", text) == ["tokens.md#nowhere", "none.md", "#none"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_target_and_link_of_a_page_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (wrong_files(text), wrong_targets(text), wrong_links(page, text)) == ([], [], [])


def test_there_is_something_to_look_at() -> None:
    """Keeps the tests above from passing because the pages are written in another form."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(list(spoken(text))) for text in texts) > 60
    assert sum(len(re.findall(r"\]\([^)]*#", text)) for text in texts) > 30
    assert len(FINDINGS) > 30
