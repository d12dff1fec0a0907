"""Nothing leads out of the default sandbox but what was granted, as root and as an ordinary user.

Real sandbox, real relay, real broker, in a world of its own where everything that could be reached
says so. The same attempts are made without the sandbox first: whatever can't be reached there
either proves nothing, so it is named.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentorch.broker import relay
from agentorch.broker.grants import Grant, write_grant
from agentorch.sandbox import confine
from agentorch.sandbox.confinement import BROKER
from tests.functional.sandbox import attempts as program
from tests.support.confined import BWRAP, NAMES, USERS, Inside, place
from tests.support.outworld import world

pytestmark = [
    pytest.mark.needs("bwrap", "unshare", "nsenter", "ip"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root; not proved here"),
]
RELAY = Path(relay.__file__)
PYTHON = "/usr/bin/python3"
LISTED = tuple(
    f"{name}.example:443"
    for name in (
        *("public", "private", "loop", "loop6", "metadata", "metadata6", "mapped", "zero"),
    )
)

# How each attempt ends inside. A list of errors: the kernel knows no way.
ABSENT = ("ENETUNREACH", "EADDRNOTAVAIL")
REFUSED = ("ECONNREFUSED",)
NOT_THERE = ("ENOENT",)
FORBIDDEN = ("EPERM", "EACCES", "EROFS", "EBUSY", "EAFNOSUPPORT")
KERNEL: Mapping[str, tuple[str, ...]] = {
    "a public address": ABSENT,
    "another port": ABSENT,
    "IPv6": ABSENT,
    "IPv6 with IPv4 in it": ABSENT,
    "a private network": ABSENT,
    "the metadata service": ABSENT,
    "the metadata service by IPv6": ABSENT,
    "the host's loopback": REFUSED,
    "the host's loopback by IPv6": (*REFUSED, *ABSENT),
    "the provider without the broker": REFUSED,
    "DNS by UDP": ABSENT,
    "DNS by UDP of the host": REFUSED,
    "DNS by TCP": ABSENT,
    "ICMP": FORBIDDEN,
    "packets": FORBIDDEN,
    "an interface": FORBIDDEN,
    "a network of its own": FORBIDDEN,
    "the network of the host's process": NOT_THERE,
    "the network of process 1": NOT_THERE,
    "an abstract socket": REFUSED,
    "D-Bus": NOT_THERE,
    "docker": NOT_THERE,
    "systemd": NOT_THERE,
    "another step's socket": NOT_THERE,
    "another step's socket by process 1": NOT_THERE,
    "descriptors of process 1": NOT_THERE,
    "the host's processes": ("ESRCH",),
    "inherited descriptors": ("EBADF",),
    "the relay's own connections": FORBIDDEN,
    "the broker's socket for one of its own": FORBIDDEN,
}
GRANTED = {"the granted host": "reached", "the granted model": "HTTP/1.1 200 reached"}
# The rest is refused by the broker, inside and outside alike.
STATUS = {
    "a host without a token": "407",
    "a smuggled request": "400",
}
# Nobody hands us a descriptor too many, and on some machines not even root may look at process 1.
NOT_PROVED = frozenset(
    {
        "inherited descriptors",
        "the network of process 1",
        "another step's socket by process 1",
        "descriptors of process 1",
    }
)
GRANTED_REACH = {"tcp 443 93.184.216.34", "upstream POST /v1/messages"}


@dataclass(frozen=True)
class World:
    """Where the decoys are, and what they were reached by."""

    directory: Path
    pid: int

    @property
    def broker(self) -> Path:
        return self.directory / "broker" / "socket"

    def tokens(self) -> dict[str, str]:
        """Grants of this step, of another, and of steps that have ended."""
        for name, hosts, expires_at in (
            ("token", LISTED, 1e11),
            ("other", (), 1e11),
            ("revoked", LISTED, 1e11),
            ("expired", LISTED, 1.0),
        ):
            providers = () if name == "other" else ("anthropic",)
            grant = Grant("job", name, 1, "claude", expires_at, None, providers, hosts)
            path = write_grant(self.directory / "broker" / "grants", grant, f"{name}-of-a-step")
            if name == "revoked":
                path.unlink()
        return {name: f"{name}-of-a-step" for name in ("token", "other", "revoked", "expired")}

    def run(self, argv: tuple[str, ...], uid: int, **more: object) -> dict[str, str]:
        """Makes the attempts as a user of this world; what came of each."""
        (self.directory / "reached").write_text("")
        enter = ("nsenter", f"--target={self.pid}", "--net", "--mount", "--")
        user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--")
        ran = subprocess.run(
            [*enter, *(user if uid else ()), *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **more,  # type: ignore[call-overload]
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        outcomes: dict[str, str] = json.loads(ran.stdout)
        return outcomes

    def reached(self) -> set[str]:
        return set((self.directory / "reached").read_text().splitlines())


def command(world: World, socket: Path) -> tuple[str, ...]:
    """The relay, and the attempts as its command."""
    given = {
        **world.tokens(),
        "host_pid": str(world.pid),
        "socket": str(socket),
        "other_socket": str(world.directory / "other" / "socket"),
    }
    script = Path(program.__file__).read_text("utf-8")
    agent = (PYTHON, "-I", "-c", script, json.dumps(given))
    return relay.relay_argv(PYTHON, str(RELAY), str(socket), 8080, agent)


def in_sandbox(world: World, inside: Inside) -> dict[str, str]:
    confinement = replace(inside.confinement(), broker=world.broker, read_only=(RELAY,))
    with confine(BWRAP, confinement, command(world, BROKER)) as start:
        return world.run(start.argv, inside.uid, env=start.environment, pass_fds=start.pass_fds)


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with place(0) as inside:  # others may go through all directories above it
        directory = inside.top / "world"
        directory.mkdir()
        program_path = str(Path(__file__).with_name("decoys.py"))
        with world(directory, program_path, str(directory)) as process:
            yield World(directory, process.pid)


@dataclass(frozen=True)
class Tried:
    """What came of everything inside, and who was reached by it."""

    outcomes: Mapping[str, str]
    reached: set[str]


@pytest.fixture(scope="module", params=USERS, ids=lambda uid: NAMES.get(uid, "user"))
def tried(request: pytest.FixtureRequest, decoys: World) -> Tried:
    with place(request.param) as inside:
        outcomes = in_sandbox(decoys, inside)
    return Tried(outcomes, decoys.reached())


@pytest.mark.parametrize("name", KERNEL)
def test_there_is_no_way(tried: Tried, name: str) -> None:
    assert tried.outcomes[name] in KERNEL[name]


BY_BROKER = sorted(set(program.attempts({"token": ""})) - set(KERNEL) - set(GRANTED))


@pytest.mark.parametrize("name", BY_BROKER)
def test_the_broker_refuses(tried: Tried, name: str) -> None:
    words = tried.outcomes[name].split()
    assert words[1:2] == [STATUS.get(name, "403")], words


@pytest.mark.parametrize("name", GRANTED)
def test_what_is_granted_is_reached(tried: Tried, name: str) -> None:
    assert tried.outcomes[name] == GRANTED[name]


def test_nobody_else_was_reached(tried: Tried) -> None:
    assert tried.reached == GRANTED_REACH


def test_without_the_sandbox_everything_is_reached(decoys: World) -> None:
    """So every attempt that failed inside failed because of the sandbox."""
    outcomes = decoys.run(command(decoys, decoys.broker), 0)
    kept = {name: outcomes[name] for name in KERNEL if not outcomes[name].startswith("reached")}
    assert set(kept) <= NOT_PROVED, kept
    assert {name: outcomes[name] for name in GRANTED} == GRANTED
    assert decoys.reached() > GRANTED_REACH
