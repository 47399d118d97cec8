"""What can a program ask of the console? An HTTP API over the use cases of `admin/`, for bearers of admin keys.

`table.OPERATIONS` is the one list of what there is: endpoints, the OpenAPI document, the page in the documentation and the tests
are made of it.
"""
