"""Claims of Azure's access tokens, of both versions."""

from __future__ import annotations

from typing import Any

from tests.support.idp_fixtures import overlaid

TENANT = "88888888-8888-8888-8888-888888888888"
CLIENT = "33333333-3333-3333-3333-333333333333"
V2 = f"https://login.microsoftonline.com/{TENANT}/v2.0"
V1 = f"https://sts.windows.net/{TENANT}/"
OURS: dict[str, Any] = {"oid": "00000000-0000-0000-0000-000000000001", "tid": TENANT}
# Microsoft's published tokens with the names of this test; the user of the second one is at home here, and so has a upn.
CLAIMS: dict[str, dict[str, Any]] = {
    V2: overlaid(
        "azure_v2_access_token_claims",
        OURS | {"iss": V2, "aud": CLIENT, "azp": CLIENT, "preferred_username": "abeli@acme.com"},
        {"sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ"},
    ),
    V1: overlaid(
        "azure_v1_access_token_claims",
        OURS | {"iss": V1, "aud": f"api://{CLIENT}", "appid": CLIENT, "scp": "user_impersonation other"},
        {"upn": "abeli@acme.com", "unique_name": "abeli@acme.com", "idp": None, "email": None},
        {"sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA"},
    ),
}
