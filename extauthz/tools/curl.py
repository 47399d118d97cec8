"""The request that a curl line sends: read in curl's own spelling, as it is pasted, and never sent.

What is written here is what curl 7 and 8 put on the wire. No message holds the value of a flag: it may be a token.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, quote_plus, unquote

from extauthz.core.model import DECISION_ID, Request
from extauthz.errors import CurlError
from extauthz.tools.curl_flags import READ, flags
from extauthz.tools.shell_words import words_of

_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL).fullmatch
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_RANGE_BEGINS = re.compile(r"\[[^\]]").search
_BEYOND_ASCII = re.compile(r"[\x80-\xff]")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]+)?").fullmatch
_PORTS = {"http": ":80", "https": ":443"}
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class CurlRequest:
    """The request of a curl line, with what of the line is a secret, and what is good to know about how it was read."""

    request: Request = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Line:
    """What the flags of a line add up to."""

    urls: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    method: str = ""
    data: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    user: str | None = None
    bearer: str | None = None
    target: str = ""
    upload: str = ""
    own_headers: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    secrets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(words: Sequence[str]) -> CurlRequest:
    """Read the words of a curl line, with or without `curl` itself; raises CurlError."""
    words = list(words)
    while words and words[0] in ("$", "curl", "curl.exe"):
        words.pop(0)
    line = _Line()
    for name, value in flags(words):
        _take(line, name, value)
    if not line.urls:
        raise CurlError("no URL: write the address that is called")
    if len(line.urls) > 1:
        raise CurlError(f"{len(line.urls)} URLs: explain one request at a time")
    host, target = _target(line)
    headers = _headers(line, host)
    request = Request(_method(line), target, headers.pop("host", ""), headers, raw=True, decision_id=DECISION_ID)
    return CurlRequest(request, tuple(line.secrets), tuple(dict.fromkeys(line.notes)))


def _take(line: _Line, name: str, value: str) -> None:
    match name:
        case "url":
            line.urls.append(value)
        case "header":
            if value.startswith("@"):
                raise CurlError("-H @file: headers of a file are not read, write them out")
            line.headers.append(value)
        case "request":
            line.method = value
        case "data" | "data-ascii" | "data-binary" | "data-raw" | "json":
            is_file = value.startswith("@") and name != "data-raw"
            line.data.append("" if is_file else value)
            line.flags.add("json" if name == "json" else "data")
            line.flags |= {"file"} if is_file else set()
        case "data-urlencode":
            line.data.append(_encoded(line, value))
            line.flags.add("data")
        case "url-query":
            line.query.append(value[1:] if value.startswith("+") else _encoded(line, value))
        case "form" | "form-string":
            line.flags.add("form")
        case "upload-file":
            line.upload = value
        case "cookie" if "=" in value:
            line.cookies.append(value)
        case "cookie":
            line.notes.append("Cookies of a file were not read.")
        case "user":
            line.user = value
            line.secrets += [value, value.partition(":")[2]]
        case "oauth2-bearer":
            line.bearer = value
            line.secrets.append(value)
        case "user-agent" | "referer" | "range":
            line.own_headers[name] = f"bytes={value}" if name == "range" else value.removesuffix(";auto")
        case "request-target":
            line.target = value
        case "proxy-user" | "pass" | "proxy-pass" | "proxy-header":
            line.secrets.append(value)
        case _ if name in READ:
            line.flags.add(name)


def _encoded(line: _Line, value: str) -> str:
    """Return what --data-urlencode sends of `content`, `=content` and `name=content`; files are not read."""
    name, separator, content = value.partition("=")
    if not separator:
        if "@" in value:
            line.flags.add("file")
            return value.partition("@")[0]
        return quote_plus(value, safe="~")
    return f"{name}={quote_plus(content, safe='~')}" if name else quote_plus(content, safe="~")


def _method(line: _Line) -> str:
    if line.method:
        return line.method
    if "head" in line.flags:
        return "HEAD"
    if line.upload:
        return "PUT"
    sends = bool({"data", "json", "form"} & line.flags) and "get" not in line.flags
    return "POST" if sends else "GET"


def _target(line: _Line) -> tuple[str, str]:
    """Return the host as curl names it, and the target with its query; a target that is written goes before."""
    url = _bytes(line.urls[0])
    if "globoff" not in line.flags and _is_glob(url.partition("//")[2].partition("/")[2]):
        raise CurlError("the URL has brackets or braces, of which curl makes several requests: write -g, or one request")
    match = _URL(url)
    if match is None or (match[1] or "http").lower() not in _PORTS:
        raise CurlError("the URL is not one of http or https")
    scheme, authority, path, query = match[1] or "http", match[2], match[3] or "/", (match[4] or "")[1:]
    login, at, host = authority.rpartition("@")
    if not _HOST(host):
        raise CurlError("the URL has no host")
    if at and line.user is None:
        line.user = unquote(login)
        line.secrets += [login, line.user, line.user.partition(":")[2]]
    if "get" in line.flags:
        line.query += line.data
        if "file" in line.flags:
            line.notes.append("A file that goes into the query was not read.")
    query = "&".join(part for part in (query, *map(_bytes, line.query)) if part)
    path = _BEYOND_ASCII.sub(lambda letter: f"%{ord(letter[0]):02x}", path if "path-as-is" in line.flags else _without_dots(path))
    if path.endswith("/") and line.upload not in ("", "-", "."):
        path += quote(line.upload.rpartition("/")[2])
    target = _bytes(line.target) if line.target else f"{path}?{query}" if query else path
    if any(letter <= " " for letter in host + target):
        raise CurlError("the URL holds a space or a control character: encode it")
    return host.removesuffix(_PORTS[scheme.lower()]), target


def _is_glob(text: str) -> bool:
    """Tell whether a range in brackets or a list in braces begins and ends in a text, in one pass: the text may be all brackets."""
    begun = _RANGE_BEGINS(text)
    return "}" in text.partition("{")[2] or (begun is not None and "]" in text[begun.end() :])


def _without_dots(path: str) -> str:
    """Take `.` and `..` out of a path, as curl does before it asks (RFC 3986 5.2.4)."""
    kept: list[str] = []
    segments = path[1:].split("/")
    for index, segment in enumerate(segments):
        if segment not in (".", ".."):
            kept.append(segment)
            continue
        if segment == "..":
            del kept[-1:]
        if index == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _headers(line: _Line, host: str) -> dict[str, str]:
    """Return the headers by lower-case names, what curl adds by itself included; a header that is written goes before that."""
    own = {"host": host, "user-agent": "curl", "accept": "*/*", **line.own_headers}
    own = {name: value for name, value in own.items() if value}
    if "json" in line.flags:
        own |= {"content-type": "application/json", "accept": "application/json"}
    elif "form" in line.flags:
        own["content-type"] = "multipart/form-data"
    elif "data" in line.flags and "get" not in line.flags:
        own["content-type"] = _FORM
    if "compressed" in line.flags:
        own["accept-encoding"] = "deflate, gzip"
    if line.cookies:
        own["cookie"] = ";".join(line.cookies)
    if line.bearer is not None:
        own["authorization"] = f"Bearer {line.bearer}"
    elif line.user is not None:
        if {"digest", "ntlm", "negotiate", "anyauth"} & line.flags:
            line.notes.append("curl answers a challenge with the user of -u: the first request has no Authorization header.")
        else:
            login = line.user if ":" in line.user else f"{line.user}:"
            own["authorization"] = f"Basic {base64.b64encode(login.encode('utf-8', 'surrogateescape')).decode()}"
            line.secrets.append(own["authorization"])
    written: dict[str, str] = {}
    for name, value in _written(line.headers):
        own.pop(name, None)
        if value is not None:
            written[name] = f"{written[name]},{value}" if name in written else value
    return {name: _bytes(value) for name, value in (own | written).items()}


def _written(headers: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the names and values of -H: None for `Name:`, which takes a header away, and "" for `Name;`."""
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon:
            name, semicolon, rest = text.partition(";")
            if not semicolon or rest.strip():
                continue  # curl sends no such header
            yield _name(name), ""
            continue
        if any(letter in value for letter in "\r\n\0"):
            raise CurlError(f"-H {_shown(name)}: the value has more than one line")
        yield _name(name), value.strip(" \t") or None


def _name(text: str) -> str:
    if not _NAME(text.strip()):
        raise CurlError(f"-H {_shown(text)}: this is no name of a header")
    return text.strip().lower()


def _shown(name: str) -> str:
    return name if _NAME(name) and len(name) <= 40 and not any(map(str.isdigit, name)) else "(a name)"


def _bytes(text: str) -> str:
    """Return a text as a server reads its bytes: as Latin-1."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def read_line(text: str) -> CurlRequest:
    """Read a pasted line, as a shell would split it; raises CurlError."""
    try:
        found = words_of(text)
    except ValueError as error:
        raise CurlError(str(error)) from error
    line = read(found.words)
    return replace(line, notes=(*found.notes, *line.notes))
