"""Denials in a company's own words: configurations and what is expected of them."""

from __future__ import annotations

from extauthz.config.answers import MAX_BODY

METADATA = "https://api.acme.com/.well-known/oauth-protected-resource"
BEARER = 'Bearer realm="extauthz"'
ANSWERS = f"""
answers:
  format: problem
  resource_metadata: {METADATA}
  retry_after: 7s
  reasons:
    route_unknown:
      status: 404
      headers: {{x-hint: "no ${{reason}} in ${{realm}}", set-cookie: "seen=1; Path=/"}}
      content_type: application/vnd.acme+json
      body: '{{"code": "${{reason}}", "id": "${{decision_id}}", "braces": {{"a": "$${{b}}"}}}}'
    token_invalid: {{status: 403, message: "Prüfen Sie das Token."}}
    scope_missing: {{content_type: text/plain, body: "{"z" * (MAX_BODY - 20)} ${{scope}}"}}
    authorization_malformed: {{body: ""}}
    auth_type_unknown: {{status: 429}}
"""
SEARCH, FEED = "/rest/api/v1/search", "/rest/api/v1/feed"
