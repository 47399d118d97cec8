"""The decision log: lines of JSON, one per decision, written beside the checks.

`lines` makes them; the usual one is made by `_lines`, which is compiled, where that is built. `log` takes decisions,
`sinks` are the places that lines go to, `_runs` writes many of them at once.
"""
