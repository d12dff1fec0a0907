"""Programs of ours whose service manager, or whose journald, does not read."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agentorch.core.states import State
from agentorch.jobqueue.lookup import find
from tests.support.webhook import ROOT, Site, opened

# A program that waits for its peer waits for ever: how long this is does not matter.
TIMEOUT_S = 300
JOBS = 3
SENDERS = 16
FILLING = b"not ours"
JOURNALD = "/run/systemd/journal/socket"
# The programs see a directory of the test's in place of journald's.
ENTER = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
mount --bind "$1" /run/systemd/journal
shift
exec "$@"
"""
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def can_mount() -> bool:
    """Return whether a program may be given mounts of its own here."""
    if shutil.which(UNSHARE[0]) is None:
        return False
    argv = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


class StoppedPeer:
    """A bound socket that nobody reads. Its queue is full but for one message."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003  (socket's own)
        self._socket.bind(str(path))
        # how much one sender may have under way is limited too: it takes several to fill a queue
        for _ in range(SENDERS):
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
                suppress(BlockingIOError),
            ):
                sender.setblocking(False)  # noqa: FBT003  (socket's own)
                while True:
                    sender.sendto(FILLING, str(path))
        self._socket.recv(1)

    def close(self) -> None:
        self._socket.close()

    def received(self) -> list[bytes]:
        """Return what programs of ours have got into the queue."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(1 << 20))
        return [message for message in found if message != FILLING]


@contextmanager
def stopped_peer(path: Path) -> Iterator[StoppedPeer]:
    peer = StoppedPeer(path)
    try:
        yield peer
    finally:
        peer.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def manager(site: Site) -> Iterator[StoppedPeer]:
    """A service manager that does not read."""
    path = site.top / "notify"
    site.variables["NOTIFY_SOCKET"] = str(path)
    with stopped_peer(path) as peer:
        yield peer


@pytest.fixture
def journald(site: Site) -> Iterator[StoppedPeer]:
    """A journald that does not read; it is the stderr of the programs."""
    if not can_mount():
        pytest.skip("unshare can't give a program mounts of its own here")
    directory = site.top / "journal"
    directory.mkdir()
    log = site.top / "log"
    log.touch()
    site.variables["JOURNAL_STREAM"] = f"{log.stat().st_dev}:{log.stat().st_ino}"
    site.prefix = (*UNSHARE, "sh", "-euc", ENTER, "sh", str(directory))
    with stopped_peer(directory / Path(JOURNALD).name) as peer:
        yield peer


def serve_jobs(site: Site) -> list[str]:
    """Let the webhook take jobs and tell of them; it ends when it is told to."""
    with opened(site) as door:
        job_ids = [door.queued() for _ in range(JOBS)]
        for job_id in job_ids:
            assert door.ask("GET", f"/jobs/{job_id}").status == 200
    return job_ids


def drain(site: Site) -> None:
    """Let a runner work until nothing is left; its agents are simulated."""
    argv = [*site.prefix, sys.executable, str(ROOT / "bin/agentorch-runner"), "--drain"]
    with (site.top / "log").open("ab") as stderr:
        subprocess.run(argv, env=site.environment(), stderr=stderr, check=True, timeout=TIMEOUT_S)


def states(site: Site, job_ids: list[str]) -> set[State | None]:
    return {find(site.queue, job_id).state for job_id in job_ids}


def test_a_webhook_goes_on_when_its_manager_does_not_read(site: Site, manager: StoppedPeer) -> None:
    serve_jobs(site)
    (first,) = manager.received()
    assert first.startswith(b"READY=1")


def test_a_runner_goes_on_when_its_manager_does_not_read(site: Site, manager: StoppedPeer) -> None:
    notify_socket = site.variables.pop("NOTIFY_SOCKET")
    job_ids = serve_jobs(site)
    site.variables["NOTIFY_SOCKET"] = notify_socket
    drain(site)
    assert states(site, job_ids) == {State.DONE}
    (first,) = manager.received()
    assert first.startswith(b"READY=1")


def test_a_webhook_goes_on_when_journald_does_not_read(site: Site, journald: StoppedPeer) -> None:
    serve_jobs(site)
    (first,) = journald.received()
    assert b"SYSLOG_IDENTIFIER=agentorch-webhook\n" in first
    assert (site.top / "log").read_bytes() == b""


def test_a_runner_goes_on_when_journald_does_not_read(site: Site, journald: StoppedPeer) -> None:
    job_ids = serve_jobs(Site(site.top))
    (site.top / "log").write_bytes(b"")
    drain(site)
    assert states(site, job_ids) == {State.DONE}
    (first,) = journald.received()
    assert b"SYSLOG_IDENTIFIER=agentorch-runner\n" in first
    assert (site.top / "log").read_bytes() == b""
