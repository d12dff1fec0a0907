"""Messages to others: callbacks about ended jobs, programs in notify.d about waiting ones.

    queue/outbox/{new,waiting,failed}/          one entry a callback

Invariant: an entry leaves the outbox only when it was delivered or its time is over; a second
delivery after a crash carries the same id.

Start reading with `deliver` (callbacks) and `announce` (notify.d).
"""
