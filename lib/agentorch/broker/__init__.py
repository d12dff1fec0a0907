"""The agents' gateway: model calls with the real key, metering and caps, CONNECT to allowed hosts.

Invariant: a key is in this process alone and never passes to an agent; a call is allowed only by a
grant that is there (`run/grants/SHA256(token).json`), and counted as it passes. Names of hosts are
resolved and checked here, and the checked address is the one that is connected to.

Start reading with `server`, then `model_call` (one call of a model) and `connect` (one host).
"""
