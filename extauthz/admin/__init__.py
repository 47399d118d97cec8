"""What may an admin do?

Each use case is a plain function: an `Administration` (the open store, the rules for tokens, the peppers) comes first, then the
`Actor` who wants it, then what is wanted and the time. It returns what was done, or a `Refused` whose refusals name their fields.
A store or a configuration that cannot be used is an exception, StoreError or ConfigurationError.

`rights.may` is the one place that knows which role may do what. `token_requests` holds the rules of a new token; `tokens`,
`revocation`, `leaks`, `transfer`, `verification`, `audits` and `stores` are the use cases. The command line and the console render
them, and hold no rule of their own: nothing here knows a terminal, HTTP or an exit code.
"""
