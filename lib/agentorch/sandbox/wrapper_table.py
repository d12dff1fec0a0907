"""The table of wrappers: what each enforces, and the refusals that follow from it.

What a wrapper is not known to enforce is refused where it is asked for, never assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentorch.core.job import Network
from agentorch.sandbox.confinement import Confinement, Wrapper


@dataclass(frozen=True)
class Enforces:
    """`network`: deny is deny. `filesystem`: only what a Confinement names can be seen or written.
    `processes`: those outside can neither be seen nor signalled. `ends`: killing the client ends
    everything inside. `alive`: the lock's descriptor is held for as long as anything runs inside.
    `broker`: its socket is shown inside, at BROKER.
    """

    network: bool
    filesystem: bool
    processes: bool
    ends: bool
    alive: bool
    broker: bool = False


WRAPPERS: dict[str, Enforces] = {
    "bwrap": Enforces(
        network=True, filesystem=True, processes=True, ends=True, alive=True, broker=True
    ),
    "firejail": Enforces(network=True, filesystem=True, processes=True, ends=False, alive=False),
    "docker": Enforces(network=True, filesystem=True, processes=True, ends=False, alive=False),
    "podman": Enforces(network=True, filesystem=True, processes=True, ends=False, alive=False),
    "systemd-run": Enforces(network=True, filesystem=True, processes=True, ends=False, alive=False),
}
NOTHING = Enforces(network=False, filesystem=False, processes=False, ends=False, alive=False)

NEEDS_IMAGE = frozenset({"docker", "podman"})


def enforces(wrapper: Wrapper) -> Enforces:
    """Return what this wrapper is known to enforce; nothing where it is not known."""
    return WRAPPERS.get(wrapper.kind, NOTHING)


def refusals(wrapper: Wrapper, confinement: Confinement) -> tuple[str, ...]:
    """Return what of `confinement` this wrapper can't promise, in words; empty is fine."""
    can = enforces(wrapper)
    asked = (
        ("network deny", confinement.network is Network.DENY and not can.network),
        ("a read-only workspace", confinement.work_read_only and not can.filesystem),
        ("the broker as the only way out", confinement.broker is not None and not can.broker),
        ("masked paths", bool(confinement.masked) and not can.filesystem),
    )
    known = ", ".join(WRAPPERS)
    return (
        *(
            f"SANDBOX_WRAPPER: {wrapper.command!r} is not known to enforce {what} (known: {known})"
            for what, missing in asked
            if missing
        ),
        *_missing_image(wrapper),
    )


def _missing_image(wrapper: Wrapper) -> tuple[str, ...]:
    if wrapper.kind not in NEEDS_IMAGE or wrapper.arguments:
        return ()
    words = "needs an image as the last argument, or for podman --rootfs DIRECTORY"
    return (f"SANDBOX_WRAPPER_ARGS: {wrapper.kind} {words}",)
