"""HTTP in front of the queue: a WSGI application and its server.

The pure parts: `answers` (what is said), `routes` (which endpoint), `tokens` (who may), `rate` (how
often), `clients` (who asks), `deliveries` (idempotency keys), `artifacttypes`. `requests` makes a
value of what came, `submitting`, `deciding`, `reading`, `files`, `health` answer it, `application`
is the shell around them, `listening`, `channels` and `server` are the sockets and their loop.
"""
