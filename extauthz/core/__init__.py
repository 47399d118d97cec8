"""What is decided?

`plan` (in `decide`) reads a request: `paths`, `routes`, `credentials`. `decide` adds what a verifier brought, `act_as` and scopes,
and returns Allow with the headers of `identity`, or Deny with one Reason of `model`. All pure: time and chance are arguments.
"""
