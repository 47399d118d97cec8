"""Fills in the YAML templates of this folder, and writes values into them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from textwrap import indent
from typing import Any

_PLAIN = re.compile(
    r"localhost|/[A-Za-z0-9._/-]+|[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)+|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|x-[a-z-]+"
).fullmatch
# Shorter words, like "y", are read in more than one way.
_NAME = re.compile(r"[a-z][a-z0-9.-]{2,}").fullmatch


def scalar(value: str) -> str:
    """Write a text so that no YAML reader takes it for anything else."""
    return value if _PLAIN(value) else json.dumps(value)


def resource_name(value: str) -> str:
    """Write the name of a Kubernetes resource, quoted where a YAML reader could take it for anything else."""
    import yaml

    return value if _NAME(value) and yaml.safe_load(value) == value else json.dumps(value)


def block(value: Any) -> str:
    """Write data as YAML, in the order in which it stands."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, width=1000)


def seconds(value: float) -> str:
    """Write seconds as Envoy reads them: "0.2s"."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def duration(value: float) -> str:
    """Write seconds as Kubernetes resources have them, in whole numbers: "200ms", "3s"."""
    return f"{round(value * 1000)}ms" if value < 60 and value % 1 else f"{-(-value // 1):g}s"


def filled(name: str, values: Mapping[str, str]) -> str:
    """Fill in a template; what a value on a line of its own holds is indented as that line is, and an empty one leaves no line."""
    parts = []
    for line in files(__package__).joinpath(f"{name}.yaml").read_text("utf-8").splitlines(keepends=True):
        place = line.strip()
        if place.startswith("$"):
            parts.append(indent(values[place[1:]], line[: line.index("$")]))
        else:
            parts.append(Template(line).substitute(values))
    return "".join(parts)
