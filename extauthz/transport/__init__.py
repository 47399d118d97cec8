"""Who speaks on the wire?

`sockets` binds addresses and claims them, `tls` and `tls_listening` put TLS in front, `limits` counts file descriptors, `select`
chooses between the two gRPC transports of `grpc/`. `http/` serves the pages for monitoring.
"""
