"""Where a configuration is read from: a file, a folder, or a revision of the git repository around the current folder."""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
from pathlib import Path

from extauthz.config.files import MAX_BYTES, Files
from extauthz.config.loader import Configuration, load
from extauthz.errors import SourceError

FILE, INNER = "extauthz.yaml", "config/extauthz.yaml"
"""What is looked for in a folder, in this order: the second is where `extauthz init` writes it."""
PREFIX = "git:"

_LINK, _FOLDER = "120000", "tree"
_MAX_LINKS = 8
_PATIENCE = 60.0
"""Seconds that git may take for one answer."""


def load_from(source: str) -> Configuration:
    """Load `PATH` or `git:REVISION:PATH`, where PATH is extauthz.yaml, its folder, or the folder with `config/` in it.

    Raises ConfigurationError, and SourceError for a revision that cannot be read.
    """
    if source.startswith(PREFIX):
        return _load_revision(source)
    path = Path(source)
    # Path.is_dir raises for a name that is too long for a file; `load` says so.
    if os.path.isdir(path):
        path /= INNER if not (path / FILE).exists() and (path / INNER).exists() else FILE
    return load(path)


def _load_revision(source: str) -> Configuration:
    revision, colon, path = source.removeprefix(PREFIX).partition(":")
    if not revision or not colon or "\0" in source:
        raise SourceError(f"{source!r}: write git:REVISION:PATH, like git:main:config/extauthz.yaml")
    if path.startswith(("./", "../")) or path in (".", ".."):
        path = posixpath.join(_git("rev-parse", "--show-prefix").decode().rstrip("\n"), path)
    path = posixpath.normpath(path or ".")
    files = RevisionFiles(revision)
    if files.is_folder(path):
        inner = not files.has(posixpath.join(path, FILE)) and files.has(posixpath.join(path, INNER))
        path = posixpath.normpath(posixpath.join(path, INNER if inner else FILE))
    # With "./" a file at the top has a folder beside which its route files stand.
    name = path if "/" in path else f"./{path}"
    return load(Path(f"{files.prefix}{name}"), files)


class RevisionFiles(Files):
    """The files of one revision; whatever is named by an absolute path is read from the disk."""

    def __init__(self, revision: str) -> None:
        """Find the revision; raises SourceError."""
        super().__init__({})
        self.prefix = f"{PREFIX}{revision}:"
        found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", missing=True)
        if not found:
            raise SourceError(f"git knows no revision {revision!r}: look at `git log`, and fetch it first where it is not here")
        self._commit = found.decode().strip()

    def is_folder(self, path: str) -> bool:
        """Tell whether the revision has a folder with this path; "." is all of it."""
        return path == "." or ((entry := self._entry(path)) is not None and entry[1] == _FOLDER)

    def has(self, path: str) -> bool:
        """Tell whether something stands at this path."""
        return self._entry(posixpath.normpath(path)) is not None

    def is_file(self, path: Path) -> bool:
        """Tell whether a file can be read here."""
        try:
            self.read(path)
        except OSError:
            return False
        return True

    def read(self, path: Path, *, secret: bool = False) -> bytes:
        """Return the content of a file, cut off behind MAX_BYTES + 1; raises OSError."""
        if path not in self.contents:
            name = str(path)
            if not name.startswith(self.prefix):
                self.contents[path] = Files().read(path, secret=secret)
            else:
                self.contents[path] = self._blob(posixpath.normpath(name.removeprefix(self.prefix)))[: MAX_BYTES + 1]
        return super().read(path, secret=secret)

    def _blob(self, path: str) -> bytes:
        for _ in range(_MAX_LINKS):
            entry = self._entry(path)
            if entry is None or entry[1] != "blob":
                break
            content = _git("cat-file", "blob", entry[2])
            if entry[0] != _LINK:
                return content
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), os.fsdecode(content)))
        raise FileNotFoundError(2, "No such file in this revision", f"{self.prefix}{path}")

    def _entry(self, path: str) -> tuple[str, str, str] | None:
        """Return mode, type and object of what stands at a path; nothing outside of the repository does."""
        if path.startswith(("../", "/")) or path == "..":
            return None
        line = _git("--literal-pathspecs", "ls-tree", "-z", "--full-tree", self._commit, "--", path)
        match line.partition(b"\t")[0].decode().split(" "):
            case [mode, kind, name]:
                return mode, kind, name
        return None


def _git(*arguments: str, missing: bool = False) -> bytes:
    """Return what git prints; with `missing` nothing where it finds nothing. Raises SourceError."""
    program = shutil.which("git")
    if program is None:
        raise SourceError("there is no git to ask: install it, or name files")
    try:
        result = subprocess.run(  # noqa: S603 - git, with a revision behind --end-of-options
            [program, *arguments], capture_output=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"git does not answer: {error}") from error
    if result.returncode and not (missing and result.returncode == 1):
        raise SourceError(f"git cannot tell: {result.stderr.decode(errors='replace').strip() or result.returncode}")
    return result.stdout
