"""Certificates of a configuration that ended, or end soon: told at the start, when it is read again, and by `config check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from extauthz.config.document import KeyPath
from extauthz.config.lints import Lint
from extauthz.config.loader import Configuration
from extauthz.errors import Problem
from extauthz.transport.certificate_dates import wrong_in_bundle, wrong_in_chain

_Judge = Callable[[Path, float], Iterator[str]]


def certificate_warnings(configuration: Configuration, now: float) -> list[Problem]:
    """Return a warning for each certificate file whose dates are worth a look; `now` is in seconds since the epoch.

    A file that is not here is passed over: `config check` may run on another machine.
    """
    warnings = []
    for key, name, judge in _files(configuration):
        path = configuration.file.parent / name
        try:
            texts = list(judge(path, now)) if path.exists() else []
        except ValueError as error:
            texts = [str(error)]
        except Exception as error:  # noqa: BLE001 - a look that fails keeps nobody from serving
            texts = [f"{path} cannot be looked at: {error!r}"]
        warnings += [replace(configuration.problem(key, text), name=Lint.CERTIFICATE_DATES) for text in texts]
    return warnings


def _files(configuration: Configuration) -> Iterator[tuple[KeyPath, str, _Judge]]:
    settings = configuration.settings
    for key, tls in (("tls", settings.server.tls), ("ops_tls", settings.server.ops_tls)):
        if tls is not None:
            yield ("server", key, "certificate"), tls.certificate, wrong_in_chain
            if tls.client_ca is not None:
                yield ("server", key, "client_ca"), tls.client_ca, wrong_in_bundle
    if settings.oauth is not None and settings.oauth.enabled and settings.oauth.ca_file is not None:
        yield ("oauth", "ca_file"), settings.oauth.ca_file, wrong_in_bundle
    console = settings.console
    if console is None:
        return
    if console.tls is not None:
        yield ("console", "tls", "certificate"), console.tls.certificate, wrong_in_chain
    if console.oidc is not None and console.oidc.ca_file is not None:
        yield ("console", "oidc", "ca_file"), console.oidc.ca_file, wrong_in_bundle
    if console.sidecar_tls is not None:
        if console.sidecar_tls.certificate is not None:
            yield ("console", "sidecar_tls", "certificate"), console.sidecar_tls.certificate, wrong_in_chain
        if console.sidecar_tls.ca_file is not None:
            yield ("console", "sidecar_tls", "ca_file"), console.sidecar_tls.ca_file, wrong_in_bundle
