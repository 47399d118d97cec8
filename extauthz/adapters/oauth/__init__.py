"""What do the OAuth providers say?

`http` is the only HTTP client: time-outs, sizes, redirects and the proxy are bounded there. `discovery` finds endpoints,
`jwks` fetches and keeps its keys, `published_keys` reads a key set, and `introspection` asks about one token.
"""
