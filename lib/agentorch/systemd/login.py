"""Users as logind knows them: sd-login(3)."""

from __future__ import annotations


def users_with_manager() -> frozenset[int] | None:
    """Return the uids of those who are logged in or linger; None where logind can't be asked."""
    try:
        from systemd import login  # noqa: PLC0415  (agentorch-doctor alone asks)
    except ImportError:
        return None
    try:
        return frozenset(login.uids())
    except OSError:  # logind does not run
        return None
