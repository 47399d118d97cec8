"""How is what serves built from settings?

`build` makes a Runtime, the immutable snapshot that decides, of parts that each belong to one section of the settings; the next
configuration takes over every part whose section is the same. `oauth` builds the sources of providers, `store` opens the token
store, `tracing` the exporter, `decision_log` the log, `codec` how answers are written.

What must outlive a reload, like the change feed or the cool-downs of issuers, is opened here once and handed on.
"""
