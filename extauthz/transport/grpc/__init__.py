"""Who speaks gRPC?

Two transports run the same handler, bytes to bytes: `grpcio`, which is always there, and `nghttp2`, the fast one, in which the C
library libnghttp2 speaks HTTP/2. Of the latter, `libnghttp2` loads the library, `_session`, which is compiled, is what the library
calls, the streams, and bytes in and out; `connection` is one peer, `fields` the rules for headers (RFC 9113), `messages` the
framing of gRPC, `answers` what is sent, and `eviction` who has to go when there are too many. `health` and `reflection` are the two
services beside Check.
"""
