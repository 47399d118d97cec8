"""What is a client, or an upstream, told?

`denials` turns the Reason of a refusal into what a client gets: HTTP status, WWW-Authenticate (RFC 6750 section 3), headers and
body. `internal_tokens` signs the short-lived JWT that tells an upstream who calls, and publishes the keys that verify it.
"""
