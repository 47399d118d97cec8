"""What a configuration is made of: files that are read once, so that all of it comes from the same moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from extauthz.config.digests import digest

MAX_BYTES = 16 * 1024 * 1024
Identity = tuple[int, int]
"""Device and inode: a file that was replaced by rename has other ones, one that was written in place keeps them."""


class Files:
    """Reads each file once and then gives the same bytes again; with `contents` nothing is read from the disk at all.

    `contents` are the bytes of what was read, `missing` the paths that could not be. Secrets are in `contents` too, but the digest
    knows nothing of them: it is shown.
    """

    def __init__(self, contents: Mapping[Path, bytes] | None = None) -> None:
        """Begin with nothing read, or with all that there is."""
        self._in_memory = contents is not None
        self._secrets: set[Path] = set()
        self.contents: dict[Path, bytes] = dict(contents or {})
        self.missing: set[Path] = set()
        self._identities: dict[Path, Identity] = {}
        self._digest: tuple[tuple[int, int], str] | None = None

    def again(self) -> Files:
        """Return files that give the same bytes once more; what was not read before is read where this one would read it."""
        files = Files(self.contents if self._in_memory else None)
        files.contents, files._secrets, files._identities = dict(self.contents), set(self._secrets), dict(self._identities)
        return files

    def read(self, path: Path, *, secret: bool = False) -> bytes:
        """Return the content of a file, cut off behind MAX_BYTES + 1; raises OSError and, for a path with NUL, ValueError."""
        if secret:
            self._secrets.add(path)
        content = self.contents.get(path)
        if content is not None:
            return content
        if self._in_memory:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        try:
            content, self._identities[path] = _read_file(path)
        except (OSError, ValueError):
            self.missing.add(path)
            raise
        self.contents[path] = content
        return content

    def is_file(self, path: Path) -> bool:
        """Tell whether a file can be read here."""
        return path in self.contents if self._in_memory else path.is_file()

    @property
    def paths(self) -> frozenset[Path]:
        """Every path that was read, or could not be."""
        return frozenset(self.contents) | frozenset(self.missing)

    @property
    def digest(self) -> str:
        """Sixteen hex digits that differ when a file differs that holds no secret."""
        # It is part of every scrape, and the files may have megabytes. What was read once stays.
        counts = len(self.contents), len(self._secrets)
        if self._digest is None or self._digest[0] != counts:
            paths = sorted(self.contents.keys() - self._secrets)
            hashed = digest(*(part for path in paths for part in (str(path).encode(), self.contents[path])))
            self._digest = counts, hashed.hex()[:16]
        return self._digest[1]

    def written_in_place(self, path: Path, before: Files) -> bool:
        """Tell whether a file has another content than it had in an earlier reading, and is the same file all the same."""
        identity = self._identities.get(path)
        same = identity is not None and identity == before._identities.get(path)
        return same and self.contents[path] != before.contents[path]

    def changed(self) -> bool:
        """Tell whether the disk holds something else by now."""
        return any(_content(path) != self.contents.get(path) for path in self.paths)


def _read_file(path: Path) -> tuple[bytes, Identity]:
    # Opening a pipe would wait for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(MAX_BYTES + 1), (status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes | None:
    try:
        return _read_file(path)[0]
    except (OSError, ValueError):
        return None
