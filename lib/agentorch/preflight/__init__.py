"""Checks before an attempt: the agent's program is allowed, installed, new enough, has a login.

It looks and asks programs for their versions, and changes nothing; `agentorch-doctor` and every
attempt use the same checks, so that doctor does not promise what an attempt would refuse.

Start reading with `check`.
"""
