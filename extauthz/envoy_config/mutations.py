"""Which header names Envoy lets the sidecar set and remove, and which ones Envoy itself removes before it asks.

The rule has to allow every spelling that `IdentityHeaders.owns` takes for one of the sidecar's names: there, any character but a
letter or a digit reads as "-". Envoy refuses to start when RE2 compiles the expression into more than 100 instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from extauthz.core.identity import OVERRIDE_HEADERS, IdentityHeaders

MAX_INSTRUCTIONS = 100
ANYTHING = ".*"
SEPARATOR = "[!-.^-`|~]"
"""What stands in a header name and is neither a letter nor a digit; RE2 needs four instructions for it."""
ANY_CHARACTER = "[!-~]"
"""What stands in a header name; one instruction."""

_OF_ENVOY = ("x-envoy-auth-failure-mode-allowed", "x-envoy-auth-partial-body")
_COST = {SEPARATOR: 4, ANY_CHARACTER: 1, ANYTHING: 3}
_FRAME, _FORK = 10, 2
"""Instructions around it all, and where a name ends and another one goes on."""


@dataclass(slots=True)
class _Branch:
    """Words that may follow; `ends` tells that a name may end here, `open` that anything may follow."""

    words: dict[str, _Branch] = field(default_factory=dict)
    ends: bool = False
    open: bool = False


def allow_expression(identity: IdentityHeaders) -> str:
    """Return the names that the sidecar may set or remove, for `allow_expression` of `decoder_header_mutation_rules`.

    Where many names would make it too long, any character may stand where a separator does. Raises ValueError when not even that
    fits into Envoy's limit.
    """
    for separator in (SEPARATOR, ANY_CHARACTER):
        needed = instructions(identity, separator)
        if needed <= MAX_INSTRUCTIONS:
            return f"^{_written(_tree(identity), separator)}$"
    raise ValueError(
        f"identity.prefix and act_as.headers: Envoy would need about {needed} instructions for their names and takes "
        f"{MAX_INSTRUCTIONS}: name fewer act-as headers, or shorter ones"
    )


def instructions(identity: IdentityHeaders, separator: str = SEPARATOR) -> int:
    """Estimate, a few too many rather than one too few, how long RE2's program is: it shares the beginnings of names."""
    names = {tuple(separator if letter == "-" else letter for letter in name) for name in _listed(identity)}
    names.add((*(separator if letter == "-" else letter for letter in identity.prefix), ANYTHING))
    beginnings = {name[: end + 1] for name in names for end in range(len(name))}
    forks = names & {beginning[:-1] for beginning in beginnings}
    return sum(_COST.get(beginning[-1], 1) for beginning in beginnings) + _FRAME + _FORK * len(forks)


def header_removals(identity: IdentityHeaders) -> list[str]:
    """Return the names, besides those with the prefix, that Envoy removes before it asks; a header to be kept is none of them."""
    return [name for name in (*OVERRIDE_HEADERS, *_OF_ENVOY) if name not in identity.keep]


def trailer_removals(identity: IdentityHeaders) -> list[str]:
    """Return the names, besides those with the prefix, that are removed behind the body, which the sidecar never sees: all."""
    return list(dict.fromkeys((*OVERRIDE_HEADERS, *_OF_ENVOY, *_listed(identity))))


def _listed(identity: IdentityHeaders) -> list[str]:
    """Return the names without the prefix."""
    return [name for name in identity.always_listed if not name.startswith(identity.prefix)]


def _tree(identity: IdentityHeaders) -> _Branch:
    tree = _Branch()
    for name in _listed(identity):
        _below(tree, name).ends = True
    _below(tree, identity.prefix.removesuffix("-")).open = True
    return tree


def _below(tree: _Branch, name: str) -> _Branch:
    for word in name.split("-"):
        tree = tree.words.setdefault(word, _Branch())
    return tree


def _written(tree: _Branch, separator: str) -> str:
    """Write what may follow, in an order in which RE2 finds common beginnings."""
    branches = [word + text for word, below in sorted(tree.words.items()) for text in _followed(below, separator)]
    return branches[0] if len(branches) == 1 else f"({'|'.join(branches)})"


def _followed(branch: _Branch, separator: str) -> Iterator[str]:
    if branch.ends:
        yield ""
    if branch.open:
        yield separator + ANYTHING
    elif branch.words:
        yield separator + _written(branch, separator)
