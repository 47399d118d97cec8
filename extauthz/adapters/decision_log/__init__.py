"""The decision log: lines of JSON, one per decision, written beside the checks."""
