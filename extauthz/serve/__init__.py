"""How does the process live?

`main` is the composition root: one process, or with `supervisor` several, each a `worker` that listens, decides and drains.
`worker_process` is the side of a child, `worker_link` the side of its parent, and `messages` what they say to each other. `reload`
watches the files, reads and validates them as a whole, and has them taken at once or not at all. `figures` collects what the
metrics show.
"""
