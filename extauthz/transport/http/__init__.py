"""Who speaks HTTP/1.1?

`ops` answers monitoring and people: `/healthz`, `/readyz`, `/metrics`, `/config`. `key_set` publishes the keys of internal tokens.
"""
