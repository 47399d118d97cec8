"""The token store: SQLAlchemy Core for everything that changes, bare sqlite3 for the look-ups of `serve`."""
