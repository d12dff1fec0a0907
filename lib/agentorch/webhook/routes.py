"""The table of routes: which method and path belong to which endpoint. Pure.

A path has literal parts and `{names}`; the last name may be `{path...}`, which takes the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Endpoint(StrEnum):
    """The endpoints of the server."""

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
    """A method and a path with their endpoint; an `open` one needs no token."""

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
    """The route of a request, with the values of the names in its path."""

    route: Route
    names: Mapping[str, str]


@dataclass(frozen=True)
class WrongMethod:
    """A path that exists, but only for these methods."""

    allowed: tuple[str, ...]


def find_route(
    method: str, path: str, routes: Iterable[Route] = ROUTES
) -> Found | WrongMethod | None:
    """Return the route of a request; None where no route has its path. HEAD is routed as GET."""
    there = [(route, names) for route in routes if (names := _names(route.path, path)) is not None]
    wanted = "GET" if method == "HEAD" else method
    for route, names in there:
        if route.method == wanted:
            return Found(route, names)
    methods = {route.method for route, _ in there}
    allowed = methods | ({"HEAD"} if "GET" in methods else set())
    return WrongMethod(tuple(sorted(allowed))) if there else None


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
