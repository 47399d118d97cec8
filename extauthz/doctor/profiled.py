"""Findings about an Envoy that a control plane configures, told in its words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from extauthz.doctor.findings import Finding, Level, ok
from extauthz.doctor.profiles import PROFILES, Profile
from extauthz.envoy_config.bootstrap import Sidecar
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.templates import duration, seconds

LIMITS = "envoy.limits"


@dataclass(slots=True)
class Teller:
    """Words findings for the users of a control plane, and remembers what they cannot change; without one it changes nothing."""

    plane: ControlPlane | None
    sidecar: Sidecar
    met: dict[str, str] = field(default_factory=dict)

    @property
    def profile(self) -> Profile | None:
        """What is known of the control plane."""
        return PROFILES[self.plane] if self.plane is not None else None

    def tell(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that can be acted on."""
        profile = self.profile
        if profile is None:
            return list(findings)
        told = []
        for found in findings:
            limit = profile.limits.get(found.name)
            if limit is not None and limit.only in found.found:
                self.met[found.name] = limit.text
            else:
                told.append(self._worded(found, profile))
        return told

    def limits(self) -> Iterator[Finding]:
        """Yield, once, what the control plane fixes."""
        if self.profile is not None and self.plane is not None and self.met:
            texts = "; ".join(self.met[name] for name in sorted(self.met))
            yield ok(LIMITS, f"known limits of {self.profile.title}, see docs/{self.plane.value}.md: {texts}")

    def _worded(self, found: Finding, profile: Profile) -> Finding:
        if found.level is Level.OK:
            return found
        for advice in profile.advice.get(found.name, ()):
            if advice.only in found.found:
                write = seconds if self.plane is ControlPlane.ISTIO else duration
                text = advice.text.format(timeout=write(self.sidecar.timeout))
                return replace(found, advice=text, level=advice.level or found.level)
        return found
