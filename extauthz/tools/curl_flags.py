"""The flags of curl that HTTP has a use for: what decides the request is read, what does not is passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from extauthz.config.wording import nearest
from extauthz.errors import CurlError

READ = frozenset(
    {"get", "head", "globoff", "path-as-is", "compressed", "digest", "ntlm", "negotiate", "anyauth"},
)
READ_WITH_VALUE = frozenset(
    {
        *("url", "header", "request", "data", "data-ascii", "data-binary", "data-raw", "data-urlencode", "json", "url-query"),
        *("form", "form-string", "upload-file", "cookie", "user", "oauth2-bearer", "user-agent", "referer", "range"),
        *("request-target", "proxy-user", "pass", "proxy-pass", "proxy-header"),
    }
)
IGNORED = frozenset(
    {
        *("alpn", "basic", "buffer", "cert-status", "clobber", "create-dirs", "disable", "fail", "fail-early", "fail-with-body"),
        *("form-escape", "http0.9", "http1.0", "http1.1", "http2", "http2-prior-knowledge", "http3", "http3-only", "include"),
        *("insecure", "ipv4", "ipv6", "junk-session-cookies", "keepalive", "list-only", "location", "location-trusted"),
        *("parallel", "post301", "post302", "post303", "progress-bar", "progress-meter", "proxy-insecure", "proxytunnel", "raw"),
        *("remote-header-name", "remote-name", "remote-name-all", "remote-time", "remove-on-error", "retry-all-errors"),
        *("retry-connrefused", "sessionid", "show-error", "show-headers", "silent", "ssl", "ssl-no-revoke", "ssl-reqd"),
        *("styled-output", "tcp-fastopen", "tcp-nodelay", "tlsv1", "tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3", "trace-ids"),
        *("trace-time", "use-ascii", "verbose", "tr-encoding"),
    }
)
IGNORED_WITH_VALUE = frozenset(
    {
        *("abstract-unix-socket", "alt-svc", "cacert", "capath", "cert", "cert-type", "ciphers", "connect-timeout", "connect-to"),
        *("continue-at", "cookie-jar", "crlfile", "curves", "dns-servers", "doh-url", "dump-header", "expect100-timeout"),
        *("hsts", "interface", "keepalive-time", "key", "key-type", "limit-rate", "local-port", "max-filesize", "max-redirs"),
        *("max-time", "noproxy", "output", "output-dir", "parallel-max", "pinnedpubkey", "preproxy", "proto", "proto-default"),
        *("proto-redir", "proxy", "proxy-cacert", "proxy-cert", "proxy-key", "rate", "resolve", "retry", "retry-delay"),
        *("retry-max-time", "socks4", "socks4a", "socks5", "socks5-hostname", "speed-limit", "speed-time", "stderr", "time-cond"),
        *("tls-max", "tls13-ciphers", "trace", "trace-ascii", "trace-config", "unix-socket", "write-out"),
    }
)
REFUSED: Mapping[str, str] = {
    "config": "flags of a file are not read, write them out; --config of extauthz stands before the request",
    "next": "explain one request at a time",
    "netrc": "the login of a file is not read: write -u, or describe the caller with --as before the request",
    "netrc-file": "the login of a file is not read: write -u, or describe the caller with --as before the request",
    "netrc-optional": "the login of a file is not read: write -u, or describe the caller with --as before the request",
    "aws-sigv4": "a signature is not made: describe the caller with --as before the request",
    "expand-url": "variables of curl are not read, write the URL out",
    "expand-header": "variables of curl are not read, write the header out",
    "expand-data": "variables of curl are not read, write the data out",
    "variable": "variables of curl are not read, write the values out",
    **dict.fromkeys(
        ("as", "check-request", "curl", "help", "live", "log-line", "ops", "store", "verify"),
        "this is a flag of extauthz, and curl has none of that name: write it before the request",
    ),
}
"""Flags that change the request in a way that is not known here, and what to do."""
LONG: Mapping[str, str] = {
    "X": "request",
    "H": "header",
    "d": "data",
    "G": "get",
    "I": "head",
    "b": "cookie",
    "u": "user",
    "A": "user-agent",
    "e": "referer",
    "F": "form",
    "T": "upload-file",
    "r": "range",
    "g": "globoff",
    "U": "proxy-user",
    "K": "config",
    ":": "next",
    "n": "netrc",
    "s": "silent",
    "S": "show-error",
    "k": "insecure",
    "v": "verbose",
    "i": "include",
    "L": "location",
    "f": "fail",
    "j": "junk-session-cookies",
    "N": "no-buffer",
    "O": "remote-name",
    "R": "remote-time",
    "J": "remote-header-name",
    "q": "disable",
    "p": "proxytunnel",
    "Z": "parallel",
    "#": "progress-bar",
    "B": "use-ascii",
    "0": "http1.0",
    "1": "tlsv1",
    "4": "ipv4",
    "6": "ipv6",
    "l": "list-only",
    "o": "output",
    "w": "write-out",
    "m": "max-time",
    "x": "proxy",
    "E": "cert",
    "c": "cookie-jar",
    "D": "dump-header",
    "C": "continue-at",
    "y": "speed-time",
    "Y": "speed-limit",
    "z": "time-cond",
}
"""The long names of the flags with one letter."""

_FLAG = re.compile(r"--[a-z][a-z0-9.-]{0,30}").match


def flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag by its long name, and its value; a URL is a value of "url"."""
    rest = iter(words)
    only_urls = False
    for word in rest:
        if only_urls or not word.startswith("-") or word == "-":
            yield "url", word
        elif word == "--":
            only_urls = True
        elif word.startswith("--"):
            name = word[2:]
            yield name, _value(f"--{name}", rest) if _takes_value(name, word) else ""
        else:
            yield from _short_flags(word[1:], rest)


def _short_flags(letters: str, rest: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yield the flags of a word like -sSXPOST: the first that takes a value takes what is left of the word, or the next one."""
    for index, letter in enumerate(letters):
        name = LONG.get(letter)
        if name is None:
            shown = f"-{letter}" if letter.isalnum() and letter.isascii() else "a flag"
            raise CurlError(f"{shown} is not known: leave it out, if the request does not depend on it")
        if not _takes_value(name, f"-{letter}"):
            yield name, ""
            continue
        yield name, letters[index + 1 :] or _value(f"-{letter}", rest)
        return


def _takes_value(name: str, shown: str) -> bool:
    if name in REFUSED:
        raise CurlError(f"{shown}: {REFUSED[name]}")
    if name in READ_WITH_VALUE or name in IGNORED_WITH_VALUE:
        return True
    if name in READ or name.removeprefix("no-") in IGNORED:
        return False
    known = [f"--{each}" for each in (*READ, *READ_WITH_VALUE, *IGNORED, *IGNORED_WITH_VALUE)]
    match = _FLAG(shown)
    name = match[0] if match else ""
    if name[2:] in READ_WITH_VALUE and "=" in shown:
        raise CurlError(f"{name}: curl takes the value behind a space, and not behind '='")
    hint = nearest(name, known) or ": leave it out, if the request does not depend on it"
    raise CurlError(f"{name if len(name) == len(shown) else 'a flag'} is not known{hint}")


def _value(flag: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise CurlError(f"{flag} needs a value")
    return value
