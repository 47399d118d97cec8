"""Who speaks gRPC?

Two transports run the same handler, bytes to bytes: `grpcio`, which is always there, and `nghttp2`, the fast one, in which the C
library libnghttp2 speaks HTTP/2. Of the latter, `libnghttp2` loads the library, `connection` is one peer, `streams` its calls,
`callbacks` what the library calls, `fields` the rules for headers (RFC 9113), `messages` the framing of gRPC, `answers` what is
sent, and `eviction` who has to go when there are too many. `health` and `reflection` are the two services beside Check.
"""
