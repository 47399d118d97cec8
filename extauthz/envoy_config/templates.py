"""Fills in the YAML templates of this folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from textwrap import indent

_PLAIN = re.compile(
    r"localhost|/[A-Za-z0-9._/-]+|[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)+|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|x-[a-z-]+"
).fullmatch


def scalar(value: str) -> str:
    """Write a text so that no YAML reader takes it for anything else."""
    return value if _PLAIN(value) else json.dumps(value)


def filled(name: str, values: Mapping[str, str]) -> str:
    """Fill in a template; what a value on a line of its own holds is indented as that line is, and an empty one leaves no line."""
    written = []
    for line in files(__package__).joinpath(f"{name}.yaml").read_text("utf-8").splitlines(keepends=True):
        place = line.strip()
        if place.startswith("$"):
            written.append(indent(values[place[1:]], line[: line.index("$")]))
        else:
            written.append(Template(line).substitute(values))
    return "".join(written)
