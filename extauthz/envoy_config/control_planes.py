"""The manifests with which a control plane makes its Envoys ask extauthz."""

from __future__ import annotations

import json
from enum import StrEnum

from extauthz.envoy_config import contour, envoy_gateway, istio
from extauthz.envoy_config.bootstrap import Sidecar
from extauthz.envoy_config.placement import Placement


class ControlPlane(StrEnum):
    """Who configures Envoy."""

    ENVOY_GATEWAY = "envoy-gateway"
    ISTIO = "istio"
    CONTOUR = "contour"


def text(plane: ControlPlane, sidecar: Sidecar, placement: Placement) -> str:
    """Return YAML documents with comments.

    Raises ValueError for names, hosts or an address that this control plane, or Envoy behind it, does not take.
    """
    match plane:
        case ControlPlane.ENVOY_GATEWAY:
            return envoy_gateway.text(sidecar, placement)
        case ControlPlane.ISTIO:
            return istio.text(sidecar, placement)
        case ControlPlane.CONTOUR:
            return contour.text(sidecar, placement)


def as_json(printed: str) -> str:
    """Return printed documents as one list, which kubectl takes like them."""
    import yaml

    items = [document for document in yaml.safe_load_all(printed) if document]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2)
