"""What does a process need before, and beneath, everything else?

`early_signals` and `standard_streams` are called by `__main__` before anything else is imported: signals that come early are noted,
and closed or blocked standard streams hold nobody up. `private_files` makes files that only their owner may open, `compiled` finds
the compiled modules, and `memory` gives back to the system what the start has freed.
"""
