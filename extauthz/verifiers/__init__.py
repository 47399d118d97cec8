"""Who holds this token?

A verifier answers a token with an Identity or with the Reason of a refusal, from memory where it can; what has to wait is returned
as an awaitable. `issued` knows the tokens that this company issued, `oauth` the access tokens of its providers. Both keep their
results in `verdicts`, and look a token up only once at a time with `single_flight`. How much strangers can cause is bounded in
`throttling`. `change_feed` is the memory of what the token store says of revocations; a verdict that rests on an older state of
the feed is never used. `known_ids` tells made-up ids from real ones without the store.

Nothing here knows HTTP, SQL or YAML: keys, introspection and look-ups are ports.
"""
