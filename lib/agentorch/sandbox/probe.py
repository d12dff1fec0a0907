"""The probe: whether a sandbox holds what it promises, tried for real before it is relied on."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.core.errors import AgentorchError
from agentorch.core.job import Network
from agentorch.core.policy import DEFAULT_PATH
from agentorch.sandbox.confine import confine
from agentorch.sandbox.confinement import Confined, Confinement, Wrapper

TIMEOUT_S = 30

# Runs inside, in any shell: an image may have no Python. A line a fact, name and value.
SCRIPT = """
echo "started yes"
echo "namespace $(readlink /proc/self/ns/pid)"
[ ! -e "$1" ] || echo "neighbour visible"
( : >/agentorch-probe ) 2>/dev/null && echo "root writable" && rm -f /agentorch-probe
( : >"$2/agentorch-probe" ) 2>/dev/null && echo "work writable"
while read -r interface rest; do
    case $interface in
        *:*) echo "interface ${interface%%:*}" ;;
    esac
done </proc/net/dev
echo "finished yes"
"""


@dataclass(frozen=True)
class Facts:
    """The facts that were seen from inside."""

    finished: bool
    namespace: str
    neighbour_visible: bool
    root_writable: bool
    work_writable: bool
    interfaces: frozenset[str]


def probe(
    wrapper: Wrapper, network: Network = Network.DENY, directory: Path | None = None
) -> tuple[str, ...]:
    """Start the sandbox once; what is wrong with it, in words with a remedy. Empty is fine.

    `directory` is where workspaces would be; None is the system's place for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="agentorch-probe-", dir=directory) as scratch:
        top = Path(scratch).resolve()
        confinement = _confinement(top, network)
        argv = ("sh", "-c", SCRIPT, "sh", str(_neighbour(top)), str(confinement.work))
        try:
            with confine(wrapper, confinement, argv) as start:
                return _try(wrapper, start, network)
        except AgentorchError as problem:  # said in words already: another wrapper, a package
            return problem.problems


def _confinement(top: Path, network: Network) -> Confinement:
    work, home, artifacts = top / "work", top / "home", top / "artifacts"
    for directory in (work, home, artifacts):
        directory.mkdir()
    variables = {"PATH": DEFAULT_PATH, "HOME": str(home)}
    return Confinement(top.name, work, home, artifacts, network, variables)


def _neighbour(top: Path) -> Path:
    """Something of ours that no attempt may see."""
    secret = top / "neighbour"
    secret.write_text(json.dumps({"secret": True}))
    return secret


def _try(wrapper: Wrapper, start: Confined, network: Network) -> tuple[str, ...]:
    try:
        ran = subprocess.run(
            start.argv,
            env=start.environment,
            pass_fds=start.pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (f"SANDBOX_WRAPPER: {wrapper.command!r} did not end within {TIMEOUT_S} s",)
    facts = read(ran.stdout.decode(errors="replace"))
    if not facts.finished:
        return (_not_started(wrapper, ran.returncode, ran.stderr.decode(errors="replace")),)
    return judge(wrapper, network, facts, os.readlink("/proc/self/ns/pid"))


def read(text: str) -> Facts:
    """Return the facts out of what the script printed. Pure."""
    pairs = [line.split(" ", 1) for line in text.splitlines() if " " in line]
    one: Mapping[str, str] = dict(map(tuple, pairs))  # type: ignore[arg-type]
    return Facts(
        finished="finished" in one,
        namespace=one.get("namespace", ""),
        neighbour_visible="neighbour" in one,
        root_writable="root" in one,
        work_writable="work" in one,
        interfaces=frozenset(value.strip() for name, value in pairs if name == "interface"),
    )


def judge(wrapper: Wrapper, network: Network, facts: Facts, host_namespace: str) -> tuple[str, ...]:
    """Return what of the facts breaks a promise, in words. Pure."""
    others = ", ".join(sorted(facts.interfaces - {"lo"}))
    broken = (
        (
            network is Network.DENY and bool(others),
            f"the network is denied, and inside there is {others}: see SANDBOX_WRAPPER_ARGS",
        ),
        (facts.root_writable, "/ can be written inside: add its option for a read-only root"),
        (not facts.work_writable, "the work tree can't be written inside: check its owner"),
        (facts.neighbour_visible, "other files of the host can be seen inside: use bwrap"),
        (
            facts.namespace in ("", host_namespace),
            "the host's processes can be seen inside: use bwrap",
        ),
    )
    name = f"SANDBOX_WRAPPER: {wrapper.command!r}: "
    return tuple(name + words for is_broken, words in broken if is_broken)


USER_NAMESPACES = (
    "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1,"
    " user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0"
)
UNCOVERED_PROC = (
    "in a container, start it with an uncovered /proc (systemd-nspawn:"
    " SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes, docker: --security-opt systempaths=unconfined)"
)
# What wrappers say when the kernel or the system stops them, and what to do about it.
REMEDIES = (
    (("No permissions to create", "Creating new namespace failed", "uid map"), USER_NAMESPACES),
    (("Can't mount proc", "mounting proc", "mount proc failed"), UNCOVERED_PROC),
    (("not allowed to use Firejail",), "add the user to /etc/firejail/firejail.users"),
    (("connect to bus",), "start a systemd manager for this user: loginctl enable-linger"),
    (("Docker daemon",), "start the daemon: systemctl start docker"),
)


def _not_started(wrapper: Wrapper, code: int, said: str) -> str:
    first = said.strip().splitlines()[0] if said.strip() else f"exit code {code}"
    return f"SANDBOX_WRAPPER: {wrapper.command!r}: it does not start: {first}{remedy(said)}"


def remedy(said: str) -> str:
    """`: what to do` for what a wrapper said, or nothing. Pure."""
    fits = (words for marks, words in REMEDIES if any(mark in said for mark in marks))
    return next((f": {words}" for words in fits), "")
