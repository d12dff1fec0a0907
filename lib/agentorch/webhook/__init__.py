"""HTTP in front of the queue: a WSGI application, and waitress's loop around it.

Invariant: a job that was answered with 200 survives a power cut; no request gives a 5xx but 503
with Retry-After and 501. Pure are `responses`, `routes`, `tokens`, `rate_limit`, `clients`,
`idempotency` and `media_types`; `submit`, `decide`, `query`, `files` and `health` answer requests.

Start reading with `application`.
"""
