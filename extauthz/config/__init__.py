"""YAML to validated settings to Policy; every mistake is listed at once, with file, line and key."""
