"""What does an admin see in a browser? Pages over the use cases of `admin/`, served by a process of their own.

No rule of administration lives here, and what answers checks never imports it.
"""
