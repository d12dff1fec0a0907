"""The HTTP server in front of the queue: a WSGI application, served by waitress.

Invariant: a job that was answered with 200 survives a power cut, and the only 5xx that a request
can cause are 501, and 503 with Retry-After. `responses`, `routes`, `tokens`, `rate_limit`,
`clients`, `idempotency` and `media_types` are pure; `submit`, `decide`, `query`, `files` and
`health` answer requests.

Start reading with `application`.
"""
