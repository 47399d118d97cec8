"""Findings about an Envoy that a control plane configures, in its words."""

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
class Advisor:
    """Rewords findings for the users of a control plane, and keeps what they cannot change; without one it changes nothing."""

    plane: ControlPlane | None
    sidecar: Sidecar
    texts: dict[str, str] = field(default_factory=dict)

    def advise(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that can be acted on."""
        if self.plane is None:
            return list(findings)
        profile, rest = PROFILES[self.plane], []
        for finding in findings:
            limit = profile.limits.get(finding.name)
            if limit is not None and limit.only in finding.found:
                self.texts[finding.name] = limit.text
            else:
                rest.append(self._reworded(finding, profile))
        return rest

    def limits(self) -> Iterator[Finding]:
        """Yield, once, what the control plane fixes."""
        if self.plane is not None and self.texts:
            texts = "; ".join(self.texts[name] for name in sorted(self.texts))
            yield ok(LIMITS, f"known limits of {PROFILES[self.plane].title}, see docs/{self.plane.value}.md: {texts}")

    def _reworded(self, finding: Finding, profile: Profile) -> Finding:
        if finding.level is Level.OK:
            return finding
        for advice in profile.advice.get(finding.name, ()):
            if advice.only in finding.found:
                write = seconds if self.plane is ControlPlane.ISTIO else duration
                text = advice.text.format(timeout=write(self.sidecar.timeout))
                return replace(finding, advice=text, level=advice.level or finding.level)
        return finding
