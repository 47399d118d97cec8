"""Which header names Envoy lets the sidecar set and remove, and which ones Envoy itself removes before it asks.

The rule has to allow every spelling that `IdentityHeaders.owns` takes for one of the sidecar's names: there, any character but a
letter or a digit reads as "-". So it allows names in their own spelling, and every name with another character than these, which no
header is known by. Envoy refuses to start when RE2 compiles the expression into more than 100 instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from extauthz.core.identity import FORWARDED_HOST_HEADERS, IdentityHeaders

MAX_INSTRUCTIONS = 100
ANYTHING = ".*"
ODD = "[!-~]*[!-,.^-`|~][!-~]*"
"""A name with a character that is no letter, no digit and no "-"."""

_OF_ENVOY = ("x-envoy-auth-failure-mode-allowed", "x-envoy-auth-partial-body")
_FRAME, _FORK, _ANYTHING = 13, 2, 3
"""Instructions around it all with ODD, where a name ends and another one goes on, and for what may be anything."""


@dataclass(slots=True)
class _Branch:
    """Words that may follow; `ends` tells that a name may end here, `open` that anything may follow."""

    words: dict[str, _Branch] = field(default_factory=dict)
    ends: bool = False
    open: bool = False


def allow_expression(identity: IdentityHeaders) -> str:
    """Return the names that the sidecar may set or remove, for `allow_expression` of `decoder_header_mutation_rules`.

    It leaves out what `header_removals` names: Envoy has removed it before. The names of hosts stand in it as well where there is
    room, because proxies in front of Envoy send them with every request. Raises ValueError when it does not fit into Envoy's limit.
    """
    listed = _listed(identity)
    hosts = [name for name in FORWARDED_HOST_HEADERS if name in identity.overrides]
    for names in ([*listed, *hosts], listed):
        needed = instructions(identity.prefix, names)
        if needed <= MAX_INSTRUCTIONS:
            return expression(identity.prefix, names)
    raise ValueError(
        f"identity.prefix and act_as.headers: Envoy would need about {needed} instructions for their names and takes "
        f"{MAX_INSTRUCTIONS}: name fewer act-as headers, or shorter ones"
    )


def expression(prefix: str, names: Iterable[str]) -> str:
    """Return an expression for these names, all with the prefix, and every odd one."""
    tree = _Branch()
    for name in names:
        _below(tree, name).ends = True
    _below(tree, prefix.removesuffix("-")).open = True
    return f"^(?:{'|'.join([*_alternatives(tree), ODD])})$"


def instructions(prefix: str, names: Iterable[str]) -> int:
    """Estimate, a few too many rather than one too few, how long RE2's program is: it shares the beginnings of names."""
    all_names = {*names, prefix}
    beginnings = {name[: end + 1] for name in all_names for end in range(len(name))}
    forks = all_names & {beginning[:-1] for beginning in beginnings}
    return len(beginnings) + _ANYTHING + _FRAME + _FORK * len(forks)


def header_removals(identity: IdentityHeaders) -> list[str]:
    """Return the names, besides those with the prefix, that Envoy removes before it asks; a header to be kept is none of them."""
    return [name for name in (*identity.overrides, *_OF_ENVOY) if name not in identity.keep]


def trailer_removals(identity: IdentityHeaders) -> list[str]:
    """Return the names, besides those with the prefix, that are removed behind the body, which the sidecar never sees: all."""
    return list(dict.fromkeys((*identity.overrides, *_OF_ENVOY, *_listed(identity))))


def spellings_of_user(identity: IdentityHeaders) -> dict[str, str]:
    """Return one of the identity headers in two spellings that many servers read as one, by what templates call them."""
    name = identity.names["user"]
    return {"user": name, "user_with_underscores": name.replace("-", "_")}


def _listed(identity: IdentityHeaders) -> list[str]:
    """Return the names without the prefix."""
    return [name for name in identity.always_listed if not name.startswith(identity.prefix)]


def _below(tree: _Branch, name: str) -> _Branch:
    for word in name.split("-"):
        tree = tree.words.setdefault(word, _Branch())
    return tree


def _alternatives(tree: _Branch) -> list[str]:
    """Write what may follow, in an order in which RE2 finds common beginnings."""
    return [word + text for word, below in sorted(tree.words.items()) for text in _followed(below)]


def _followed(branch: _Branch) -> Iterator[str]:
    if branch.ends:
        yield ""
    if branch.open:
        yield f"-{ANYTHING}"
    elif branch.words:
        words = _alternatives(branch)
        yield f"-{words[0]}" if len(words) == 1 else f"-(?:{'|'.join(words)})"
