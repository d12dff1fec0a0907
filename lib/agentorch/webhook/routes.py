"""Which endpoint a request is for: a table. Pure.

A path is literal parts and `{names}`; the last name may be `{path...}`, which takes the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Endpoint(StrEnum):
    """What can be asked for."""

    SUBMIT = "submit"
    LIST = "list"
    STATUS = "status"
    ARTIFACT = "artifact"
    HEALTH = "health"
    METRICS = "metrics"
    APPROVE = "approve"
    REJECT = "reject"
    ANSWER = "answer"
    CANCEL = "cancel"
    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True)
class Route:
    """A path with a method, and the endpoint there. `open` ones want no token."""

    method: str
    path: str
    endpoint: Endpoint
    open: bool = False


ROUTES = (
    Route("POST", "/webhook", Endpoint.SUBMIT),
    Route("GET", "/jobs", Endpoint.LIST),
    Route("GET", "/jobs/{job_id}", Endpoint.STATUS),
    Route("GET", "/jobs/{job_id}/artifacts/{path...}", Endpoint.ARTIFACT),
    Route("POST", "/jobs/{job_id}/approve", Endpoint.APPROVE),
    Route("POST", "/jobs/{job_id}/reject", Endpoint.REJECT),
    Route("POST", "/jobs/{job_id}/answer", Endpoint.ANSWER),
    Route("POST", "/jobs/{job_id}/cancel", Endpoint.CANCEL),
    Route("POST", "/jobs/{job_id}/retry", Endpoint.RETRY),
    Route("POST", "/jobs/{job_id}/hold", Endpoint.HOLD),
    Route("POST", "/jobs/{job_id}/release", Endpoint.RELEASE),
    Route("GET", "/health", Endpoint.HEALTH, open=True),
    Route("GET", "/metrics", Endpoint.METRICS, open=True),
)


@dataclass(frozen=True)
class Found:
    """A route that a request is for, with what its names stand for."""

    route: Route
    names: Mapping[str, str]


@dataclass(frozen=True)
class NoMethod:
    """The path is there, for these methods only."""

    allowed: tuple[str, ...]


def find(method: str, path: str, routes: Iterable[Route] = ROUTES) -> Found | NoMethod | None:
    """The route of a request; None where nothing is at its path. HEAD goes where GET does."""
    there = [(route, names) for route in routes if (names := _names(route.path, path)) is not None]
    wanted = "GET" if method == "HEAD" else method
    for route, names in there:
        if route.method == wanted:
            return Found(route, names)
    methods = {route.method for route, _ in there}
    allowed = methods | ({"HEAD"} if "GET" in methods else set())
    return NoMethod(tuple(sorted(allowed))) if there else None


def _names(pattern: str, path: str) -> dict[str, str] | None:
    wanted = pattern.split("/")
    rest = wanted[-1].endswith("...}")
    parts = path.split("/", len(wanted) - 1 if rest else -1)
    if len(parts) != len(wanted):
        return None
    names = {}
    for want, part in zip(wanted, parts, strict=True):
        if want.startswith("{") and part:
            names[want.strip("{.}")] = part
        elif want != part:
            return None
    return names
