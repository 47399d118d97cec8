"""What the scopes of the Client API are for, in a line each; a vocabulary of one's own has no meanings here."""

from __future__ import annotations

MEANINGS = {
    "ACTIVITY": "Report what people viewed, searched and edited",
    "ANNOUNCEMENTS": "Write announcements, change and remove them",
    "ANSWERS": "Read answers to common questions, write and remove them",
    "CHAT": "Talk to the assistant, and manage its chats",
    "COLLECTIONS": "Read, make and change collections of documents",
    "DOCPERMISSIONS": "See who may open a document",
    "DOCUMENTS": "Read documents and what is known of them",
    "ENTITIES": "List people, teams and other entities",
    "FEED": "Read the personal feed",
    "FEEDBACK": "Send feedback on results and answers",
    "INSIGHTS": "Read figures on how the product is used",
    "PEOPLE": "Read profiles of people",
    "PINS": "Pin results to searches, and remove pins",
    "SEARCH": "Search, with suggestions and recommendations",
    "SHORTCUTS": "Read, make and change short links",
    "SUMMARIZE": "Summarize documents",
    "VERIFICATION": "Verify documents, and remind others to",
}


def meaning(scope: str) -> str:
    """Return what a scope is for, "" where nobody said."""
    return MEANINGS.get(scope, "")
