"""Where in Kubernetes the parts are: the gateway, the sidecar, and the API behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from extauthz.addresses import Address
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import UPSTREAM, Edge, Part, Sidecar
from extauthz.envoy_config.templates import resource_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Kubernetes Service."""

    namespace: str = "extauthz"
    name: str = "extauthz"

    @property
    def host(self) -> str:
        """The name under which its namespace's neighbours find it, and which its certificate should have."""
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Names of resources: `namespace` is that of the gateway, `listener` the name of one of its listeners.

    `trusted_hops` are the proxies in front of Envoy.
    """

    namespace: str = "default"
    gateway: str = "gateway"
    listener: str = "http"
    service: Service = field(default_factory=Service)
    upstream: Address = UPSTREAM
    domains: tuple[str, ...] = ()
    trusted_hops: int = 0

    def is_service(self, sidecar: Sidecar) -> bool:
        """Tell whether Envoy reaches the sidecar over the Service, and not within its own pod."""
        return sidecar.addresses[0].host == self.service.host

    @property
    def upstream_service(self) -> str:
        """The name of the Service behind, or that of an example."""
        host = self.upstream.host
        return host.partition(".")[0] if host[-1:].isalpha() and ":" not in host else "api"

    @property
    def names(self) -> dict[str, str]:
        """The names of resources, as they stand in YAML."""
        return {
            "namespace": resource_name(self.namespace),
            "gateway": resource_name(self.gateway),
            "service": resource_name(self.service.name),
            "service_namespace": resource_name(self.service.namespace),
        }

    @property
    def shown_domains(self) -> str:
        """The hosts, for a comment."""
        return ", ".join(self.domains)


def header_filter(sidecar: Sidecar) -> dict[str, Any]:
    """Return the filter that removes what clients may not send, as data; raises ValueError like `bootstrap.text`.

    It has a name of its own: a control plane may have a filter of this kind too, with settings for each route under its name.
    """
    return _filters(sidecar)[0] | {"name": "extauthz.header_mutation"}


def check_settings(sidecar: Sidecar, *names: str) -> dict[str, Any]:
    """Return these settings of the ext_authz filter, as data; raises ValueError like `bootstrap.text`."""
    config = _filters(sidecar)[1]["typed_config"]
    return {name: config[name] for name in names}


def cluster_settings(sidecar: Sidecar) -> dict[str, Any]:
    """Return the cluster of the sidecar, as data."""
    import yaml

    cluster: dict[str, Any] = yaml.safe_load(bootstrap.text(sidecar, Edge(), Part.CLUSTER))[0]
    return cluster


def ports(sidecar: Sidecar) -> Iterator[int]:
    """Yield the port of each process."""
    yield from (address.port for address in sidecar.addresses)


def _filters(sidecar: Sidecar) -> list[dict[str, Any]]:
    import yaml

    filters: list[dict[str, Any]] = yaml.safe_load(bootstrap.text(sidecar, Edge(), Part.FILTER))
    return [each for each in filters if each["name"] in ("envoy.filters.http.header_mutation", "envoy.filters.http.ext_authz")]
