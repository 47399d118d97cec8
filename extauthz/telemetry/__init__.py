"""What is counted and written down?

`metric_table` lists every metric with its type, labels and meaning; figures are dicts that any number of workers add up.
`decision_record` is the one line that is written of a decision, for the decision log and for Envoy's dynamic metadata. `last_used`
notes when and from where tokens were used, `recorders` hands a decision to all of them, `conditions` are the details of /readyz.
`traceparent` reads the caller's trace context (W3C Trace Context).

What writes them to the world outside is in `adapters/`.
"""
