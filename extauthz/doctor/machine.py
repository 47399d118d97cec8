"""What the machine offers: Python, libraries, and how many connections a process may hold."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
from collections.abc import Callable, Iterable, Iterator

from packaging.requirements import Requirement

from extauthz import __version__
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.transport.limits import SPARE
from extauthz.transport.select import fast_library


def look(transport: str, connections: int) -> Iterator[Finding]:
    """Look at this machine for a sidecar with this `server.transport` and this many connections of Envoy's."""
    yield ok("python", f"{platform.python_version()}, extauthz {__version__}, {platform.system()} {platform.machine()}")
    yield from libraries(importlib.metadata.requires("extauthz") or (), _installed)
    yield fast_transport(transport, *_fast_library())
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1], connections)


def libraries(requirements: Iterable[str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Compare the versions of the libraries with those that this release requires."""
    good = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, version = requirement.name, installed(requirement.name)
        advice = "install what requirements/runtime.txt lists"
        if version is None:
            # What only some platforms have is judged with the transport that needs it.
            if requirement.marker is None:
                yield problem("libraries", f"{name} is not installed", advice)
        elif not requirement.specifier.contains(version, prereleases=True):
            least = ", ".join(each.version for each in requirement.specifier)
            yield problem("libraries", f"{name} {version} is older than {least}", advice)
        else:
            good.append(f"{name} {version}")
    yield ok("libraries", ", ".join(good))


def fast_transport(transport: str, version: str | None, missing: list[str], cause: str) -> Finding:
    """Judge libnghttp2 and uvloop, without which nghttp2 does not serve; `missing` are its limits against floods."""
    if transport == "grpcio":
        return ok("transport", "server.transport is grpcio, which needs nothing else")
    verdict = problem if transport == "nghttp2" else warning
    if version is None:
        slower = "; until then grpcio serves, which answers a fraction of the checks a second"
        hint = slower if transport == "auto" else ", or write server.transport: auto"
        return verdict("transport", f"nghttp2 cannot serve: {cause}", f"mend that{hint}")
    if missing:
        return verdict(
            "transport",
            f"libnghttp2 {version} lacks {' and '.join(missing)}: a peer could keep the process busy",
            "update the library to 1.61 or newer" + ("; until then grpcio serves" if transport == "auto" else ""),
        )
    return ok("transport", f"libnghttp2 {version} with both limits against floods, the compiled modules, and uvloop")


def descriptors(limit: int, connections: int) -> Finding:
    """Compare the hard limit of open files, which the sidecar may use, with the connections that are let in."""
    if limit != resource.RLIM_INFINITY and limit < connections + SPARE:
        return warning(
            "file_descriptors",
            f"this process may open {limit} files, and grpc.connections lets in {connections} connections",
            f"raise the limit to {connections + SPARE} (ulimit -Hn, LimitNOFILE) where the sidecar runs, or lower grpc.connections",
        )
    return ok("file_descriptors", f"{limit} files may be open, for {connections} connections")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fast_library() -> tuple[str | None, list[str], str]:
    try:
        version, missing = fast_library()
    except (ImportError, AttributeError) as error:
        return None, [], str(error)
    return version, missing, ""
