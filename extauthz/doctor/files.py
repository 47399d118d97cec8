"""Files and folders: who may read secrets, who may change what decides, and what the sidecar has to be able to write."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from extauthz.adapters.store.sqlite_file import is_read_only
from extauthz.addresses import Address
from extauthz.config.loader import Configuration
from extauthz.config.values import Secret
from extauthz.doctor import certificates
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.errors import ListenError
from extauthz.transport.tls import TlsFiles


def look(configuration: Configuration, now: float) -> Iterator[Finding]:
    """Look at every file that the configuration names."""
    for path in configuration.yaml_files:
        yield not_for_all_to_write("file.configuration", path)
    yield changes(end_marker=configuration.settings.reload.end_marker)
    for path in secret_files(configuration):
        yield secret_file("file.secret", path)
    place = configuration.store_place
    if isinstance(place, Path) and os.path.exists(place):
        yield from sqlite_file("file.store", place)
    server = configuration.settings.server
    if server.listen.path:
        for address in server.addresses:
            yield from socket_place("file.socket", address, server.socket_mode, server.socket_group)
    for tls in filter(None, (configuration.tls_files(server.tls), configuration.tls_files(server.ops_tls))):
        yield from tls_files("tls", TlsFiles(*tls), now)


def changes(*, end_marker: bool) -> Finding:
    """Say when a changed file counts."""
    if end_marker:
        return ok("file.reload", "a changed file counts when its last line is '# end'")
    return ok(
        "file.reload",
        "a changed file counts as soon as it is valid, half written too: replace files by rename, or write reload.end_marker",
    )


def secret_files(configuration: Configuration) -> list[Path]:
    """Return the files of peppers, passwords, client secrets, signing keys, headers of traces and the key of TLS."""
    settings, folder = configuration.settings, configuration.file.parent
    places: list[Secret | None] = []
    if settings.tokens and settings.tokens.enabled:
        places += [*settings.tokens.peppers, settings.tokens.store_password]
    if settings.oauth and settings.oauth.enabled:
        places += [entry.client_secret for entry in settings.oauth.entries]
        places += [settings.oauth.proxy.password] if settings.oauth.proxy else []
    if settings.internal_token and settings.internal_token.enabled:
        places += settings.internal_token.keys
    places += settings.tracing.headers.values()
    paths = [folder / place.file for place in places if place is not None and place.file is not None]
    listeners = (configuration.tls_files(settings.server.tls), configuration.tls_files(settings.server.ops_tls))
    return [*paths, *(tls[1] for tls in listeners if tls)]


def secret_file(name: str, path: Path) -> Finding:
    """Judge who may read a secret."""
    status = _status(path)
    if isinstance(status, str):
        return problem(name, f"{path}: {status}", "restore it from its backup; 'extauthz token create' makes the first pepper")
    mode, owner = stat.S_IMODE(status.st_mode), _owner(status.st_uid)
    if not stat.S_ISREG(status.st_mode):
        return problem(name, f"{path} is not a file", "put the secret into a file of its own")
    if not os.access(path, os.R_OK):
        text = f"{path} of {owner}, mode {mode:04o}, cannot be read by this user"
        return problem(name, text, "run this as the user of the sidecar, or give the file to that user")
    if mode & 0o022:
        text = f"{path} can be changed by others (mode {mode:04o})"
        return problem(name, text, f"chmod 0600 {path}, and look who changed it")
    if mode & 0o004:
        text = f"{path} can be read by everybody (mode {mode:04o})"
        return problem(name, text, f"chmod 0600 {path}, or 0640 with a group of its own")
    if mode & 0o040:
        text = f"{path} can be read by the group {_group(status.st_gid)} (mode {mode:04o})"
        return warning(name, text, f"chmod 0600 {path}, unless that group is the sidecar's")
    if status.st_uid not in (0, os.geteuid()):
        return warning(name, f"{path} belongs to {owner}, who can change it", "give it to the user of the sidecar, or to root")
    return ok(name, f"{path} can be read by {owner} only")


def not_for_all_to_write(name: str, path: Path) -> Finding:
    """Judge who may change a file that decides."""
    status = _status(path)
    if isinstance(status, str):
        return problem(name, f"{path}: {status}", "put it back; until then the sidecar does not start")
    if status.st_mode & 0o002:
        return problem(name, f"{path} can be changed by everybody", f"chmod o-w {path}")
    above = _status(path.parent)
    if not isinstance(above, str) and above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX:
        return problem(name, f"{path} can be replaced by everybody who may write to its folder", f"chmod o-w {path.parent}")
    return ok(name, f"{path}, mode {stat.S_IMODE(status.st_mode):04o}")


def sqlite_file(name: str, path: Path) -> Iterator[Finding]:
    """Judge the file of the token store and its folder, in which SQLite keeps its log."""
    status = _status(path)
    if isinstance(status, str):
        yield problem(name, f"{path}: {status}", "make the store with 'extauthz store migrate' or 'extauthz token create'")
        return
    mode = stat.S_IMODE(status.st_mode)
    if not os.access(path, os.R_OK, effective_ids=True):
        yield problem(name, f"{path}, mode {mode:04o}, cannot be read by this user", "give it to the user of the sidecar")
        return
    if is_read_only(path):
        text = f"{path} can be read, and not written to, by this user: checks are answered, last uses are not kept"
        yield warning(name, text, "let the user of the sidecar write to the file and to its folder, unless it is meant so")
    elif not mode & 0o066:
        yield ok(name, f"{path}, mode {mode:04o}, and its folder can be written to")
    if mode & 0o002:
        yield problem(name, f"{path} can be changed by everybody (mode {mode:04o})", f"chmod 0600 {path}")
    elif mode & 0o004:
        advice = f"chmod 0600 {path}, or 0640 with a group of its own: it holds no token, but who has which"
        yield warning(name, f"{path} can be read by everybody (mode {mode:04o})", advice)
    elif mode & 0o060:
        text = f"{path} is open to the group {_group(status.st_gid)} (mode {mode:04o})"
        yield warning(name, text, f"chmod 0600 {path}, unless that group is the sidecar's")


def socket_place(name: str, address: Address, mode: str, group: str | None) -> Iterator[Finding]:
    """Judge the folder of a unix socket, and the socket if the sidecar runs."""
    path = Path(address.path)
    above = _status(path.parent)
    if isinstance(above, str) or not stat.S_ISDIR(above.st_mode):
        yield problem(name, f"{path.parent}, the folder of the socket, is not there", f"mkdir -m 0750 {path.parent}")
        return
    if above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX:
        yield problem(
            name, f"{path.parent} can be written to by everybody, who can put a socket there", f"chmod 0750 {path.parent}"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        yield problem(name, f"{path.parent} cannot be written to by this user", "give the folder to the user of the sidecar")
    if group is not None and not _has_group(group):
        yield problem(name, f"server.socket_group {group!r} is no group of this machine", f"groupadd {group}, or name another")
    status = _status(path)
    if isinstance(status, str):
        yield ok(name, f"{path.parent} is there; nobody listens at {path} now")
    elif not stat.S_ISSOCK(status.st_mode):
        yield problem(name, f"{path} is not a socket", "move the file away: the sidecar does not start over it")
    elif stat.S_IMODE(status.st_mode) != int(mode, 8):
        advice = "start the sidecar anew, and look who changed it"
        yield warning(name, f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, server.socket_mode is {mode}", advice)
    else:
        yield ok(name, f"{path}, mode {mode}, group {_group(status.st_gid)}")


def tls_files(name: str, files: TlsFiles, now: float) -> Iterator[Finding]:
    """Judge certificate, key and authorities of a listener for Envoy or monitoring."""
    yield from certificate_files(name, files, now)
    if files.client_ca is None:
        advice = "write server.tls.client_ca, so that only Envoy's certificate is let in, unless the network lets in only Envoy"
        yield warning(name, "every client that reaches the port may ask", advice)


def certificate_files(name: str, files: TlsFiles, now: float) -> Iterator[Finding]:
    """Judge certificate, key and authorities: that they fit together, and their dates."""
    try:
        files.load()
    except ListenError as error:
        yield problem(name, str(error), "put the certificate and its own unencrypted key there")
    for path in (files.certificate, *([files.client_ca] if files.client_ca else [])):
        yield from certificates.dates(name, path, now)


def _status(path: Path) -> os.stat_result | str:
    try:
        return path.stat()
    except OSError as error:
        return error.strerror or str(error)


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
