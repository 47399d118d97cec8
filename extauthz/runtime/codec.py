"""How answers are written, from settings: the codec, and what signs internal tokens."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.config.loader import Configuration
from extauthz.errors import ConfigurationError
from extauthz.ports import Clock, Codec
from extauthz.responses.client_headers import ClientHeaders
from extauthz.responses.internal_tokens import InternalTokens, Recipe, SigningCodec, signing_key

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing


def build_internal_tokens(
    configuration: Configuration, private_keys: Mapping[str, bytes], *, previous: InternalTokens | None = None
) -> InternalTokens | None:
    """Return what signs internal tokens, None when they are off; raises ConfigurationError for keys that cannot be used.

    While nothing of it changed the `previous` one goes on, with the tokens in its memory.
    """
    section = configuration.internal_token
    if section is None:
        return None
    keys, problems = [], []
    for index, (key_id, pem) in enumerate(private_keys.items()):
        try:
            keys.append(signing_key(key_id, pem))
        except ValueError as error:
            problems.append(configuration.problem(("internal_token", "keys", index), str(error)))
    if problems:
        raise ConfigurationError(problems)
    header, capacity = configuration.policy.identity.names["token"], configuration.settings.limits.internal_tokens
    recipe = Recipe(section.issuer, header, section.lifetime, tuple(keys), capacity)
    if previous is not None and previous.recipe == recipe:
        return previous
    return InternalTokens(recipe, token_ids=lambda: secrets.token_hex(16))


def build_codec(
    configuration: Configuration, internal_tokens: InternalTokens | None, tracing: Tracing | None, *, clock: Clock
) -> Codec:
    """Return what reads Envoy's questions and writes the answers."""
    settings, section = configuration.settings, configuration.internal_token
    codec: Codec = EnvoyCodec(
        realm=settings.realm,
        error_response=settings.envoy.error_response,
        answers=settings.answers.answers,
        headers=ClientHeaders.of(configuration.policy, settings.auth_type.oauth, settings.header_names),
        client_address=settings.envoy.client_address,
        clock=clock.monotonic,
    )
    if section is not None and internal_tokens is not None:
        audiences = configuration.audiences
        codec = SigningCodec(codec, internal_tokens, audience=section.audience, audiences=audiences, clock=clock)
    return codec if tracing is None else tracing.codec(codec)
