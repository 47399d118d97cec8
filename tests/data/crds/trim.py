"""Writes what the tests need of custom resource definitions: `python tests/data/crds/trim.py FOLDER`, a folder of *.yaml files.

Of each kind that `extauthz envoy-config` prints the schema is kept, without descriptions and `status`. In the two largest ones
`spec` keeps the fields in USED: what is not among them is refused in the tests as an unknown field would be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KINDS = (
    *("SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyPatchPolicy"),
    *("AuthorizationPolicy", "EnvoyFilter", "ExtensionService", "HTTPProxy"),
)
TARGETS = {"targetRef", "targetRefs", "targetSelectors", "mergeType"}
USED = {
    "SecurityPolicy": TARGETS | {"extAuth"},
    "BackendTrafficPolicy": TARGETS | {"timeout", "retry", "healthCheck", "circuitBreaker"},
}


def without_descriptions(schema: Any) -> Any:
    """Drop the descriptions of a schema; a property may have that name and stays."""
    if isinstance(schema, list):
        return [without_descriptions(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_descriptions(value) for key, value in schema.items() if key != "description" or not isinstance(value, str)}


def trimmed(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the newest served schema of a definition, with what names it."""
    kind = definition["spec"]["names"]["kind"]
    version = next(each for each in definition["spec"]["versions"] if each["storage"])
    if not version["served"]:
        version = next(each for each in definition["spec"]["versions"] if each["served"])
    schema = without_descriptions(version["schema"]["openAPIV3Schema"])
    schema["properties"].pop("status", None)
    spec = schema["properties"]["spec"]
    spec["properties"] = {name: one for name, one in spec["properties"].items() if name in USED.get(kind, {name})}
    return {"apiVersion": f"{definition['spec']['group']}/{version['name']}", "kind": kind, "schema": schema}


def main(folder: Path) -> None:
    """Write a file for each kind that the folder defines, beside this one."""
    for file in sorted(folder.glob("*.yaml")):
        for definition in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if definition and definition["spec"]["names"]["kind"] in KINDS:
                made = trimmed(definition)
                text = json.dumps(made, separators=(",", ":"), sort_keys=True)
                Path(__file__).with_name(f"{made['kind']}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
