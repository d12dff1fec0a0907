"""docker(1) and podman(1): the image, or podman's --rootfs, is the end of the server's arguments.

Nothing of the host is there but what is mounted here. The engine's daemon or monitor, not the
client, is the container's parent, so ending the client does not end the container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from agentorch.core.job import Network
from agentorch.sandbox.confinement import Confinement, Wrapper
from agentorch.sandbox.host import TEMPORARY_BYTES, Host
from agentorch.sandbox.wrapper_syntax import plain

# What a client needs of ours to find its daemon or its storage.
CLIENT_VARIABLES = (
    *("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"),
    *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("CONTAINER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"),
)


def run_argv(
    wrapper: Wrapper,
    confinement: Confinement,
    host: Host,
    argv: Iterable[str],
    *,
    variables_fd: int,
) -> tuple[str, ...]:
    """Return the client's command line; `variables_fd` has the environment as an --env-file."""
    return (
        *(wrapper.command, "run"),
        "--rm",
        "--interactive",
        *("--name", confinement.name),
        *("--network", "none" if confinement.network is Network.DENY else "host"),
        "--read-only",
        *("--cap-drop", "all"),
        *("--security-opt", "no-new-privileges"),
        *("--user", f"{host.user[0]}:{host.user[1]}"),
        *("--env-file", f"/dev/fd/{variables_fd}"),
        *_podman(wrapper, host.user),
        *("--tmpfs", f"/tmp:rw,mode=1777,size={TEMPORARY_BYTES}"),
        *_mounts(wrapper, confinement, host),
        *("--workdir", plain(confinement.work, wrapper.kind)),
        *wrapper.arguments,
        *argv,
    )


def remove_argv(wrapper: Wrapper, confinement: Confinement) -> tuple[str, ...]:
    """End the container at once; one that is already gone is no failure."""
    at_once = ("--time", "0", "--ignore") if wrapper.kind == "podman" else ()
    return (wrapper.command, "rm", "--force", *at_once, confinement.name)


def client_environment(server: Mapping[str, str]) -> dict[str, str]:
    """Return the client's own environment, without the agents' keys."""
    return {name: server[name] for name in CLIENT_VARIABLES if name in server}


def _podman(wrapper: Wrapper, user: tuple[int, int]) -> list[str]:
    if wrapper.kind != "podman":
        return []
    # the host's proxy variables may hold a password; without keep-id files change their owner
    return ["--http-proxy=false", *(["--userns", "keep-id"] if user[0] else [])]


def _mounts(wrapper: Wrapper, confinement: Confinement, host: Host) -> list[str]:
    read_only = [*sorted(host.present)]
    writable = [confinement.home]
    (read_only if confinement.work_read_only else writable).append(confinement.work)
    mounts = [
        *(_bind(path, path, wrapper, ",readonly") for path in read_only),
        *(_bind(path, path, wrapper) for path in writable),
        *(f"type=tmpfs,destination={plain(path, wrapper.kind)}" for path in host.masks.directories),
        *(_bind(Path("/dev/null"), path, wrapper, ",readonly") for path in host.masks.files),
    ]
    return [word for mount in mounts for word in ("--mount", mount)]


def _bind(source: Path, target: Path, wrapper: Wrapper, options: str = "") -> str:
    source_text, target_text = plain(source, wrapper.kind), plain(target, wrapper.kind)
    return f"type=bind,source={source_text},destination={target_text}{options}"
