"""What does Envoy ask, and how is it answered?

`codec` reads a CheckRequest into a request of the core, and writes a decision as a CheckResponse. The usual CheckRequest is read by
`_reader`, which is compiled; whatever is unusual, and everything where it is not built, is read by protobuf. Denials are templates
around the decision id; `allowances` puts allows together from parts, of which those of a caller are kept with the edits of his
requests, and those of a route once for all.
"""
