"""Moments as text and back: RFC 3339, UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str) -> datetime:
    """The moment that an RFC 3339 text of a checked document names."""
    return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)
