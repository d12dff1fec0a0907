"""firejail and podman, started for real."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentorch.sandbox import Wrapper, confine, occupants, probe
from tests.support.confined import NOBODY, Inside, as_user, place

# ---- firejail, for real -----------------------------------------------------------------------


def ordinary_user() -> int | None:
    """A user whom firejail lets in: one with an account that is not nobody."""
    users = (user.pw_uid for user in pwd.getpwall() if 1000 <= user.pw_uid < NOBODY)
    return next(users, None) if os.geteuid() == 0 else os.geteuid()


JAILED = sorted({os.geteuid()} | ({ordinary_user()} - {None}))  # type: ignore[type-var]


@pytest.fixture(params=JAILED, ids=lambda uid: f"uid{uid}")
def jail(request: pytest.FixtureRequest) -> Iterator[Inside]:
    if shutil.which("firejail") is None:
        pytest.skip("firejail is not installed; not proved here")
    with place(request.param) as inside:
        yield replace(inside, wrapper=Wrapper("firejail"))


LOOK = """
cat "$1" /etc/shadow 2>/dev/null
ls -d /root/.ssh/* /var/lib/* /run/dbus/* 2>/dev/null
touch /agentorch-test /usr/agentorch-test "$2/x" 2>/dev/null
touch work-file "$HOME/home-file"
cat "$2/report.md"
echo
readlink /proc/self/ns/pid
kill -0 "$3" 2>/dev/null && echo signalled
sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev
echo "$KEY"
"""


def looked(
    inside: Inside, wrapper: Wrapper, victim: int, prefix: tuple[str, ...] = ()
) -> list[str]:
    """What the program above said, which tries to see and do what it must not."""
    arguments = (str(inside.neighbour), str(inside.artifacts), str(victim))
    argv = ["sh", "-c", LOOK, "sh", *arguments]
    with confine(wrapper, inside.confinement({"KEY": "a b$c"}), argv) as start:
        ran = subprocess.run(
            [*prefix, *start.argv],
            env=start.environment,
            pass_fds=start.pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **as_user(inside.uid),
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return str(ran.stdout).splitlines()


@pytest.fixture
def victim() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def held(said: list[str]) -> bool:
    """Whether nothing was seen but what is meant to be."""
    namespace = os.readlink("/proc/self/ns/pid")
    expected = ["report", said[1], "lo", "a b$c"]
    return said == expected and said[1].startswith("pid:[") and said[1] != namespace


def test_firejail_holds(jail: Inside, victim: int) -> None:
    assert held(looked(jail, jail.wrapper, victim))
    assert (jail.work / "work-file").stat().st_uid == jail.uid
    assert (jail.home / "home-file").stat().st_uid == jail.uid
    assert not (jail.artifacts / "x").exists()


def test_firejail_lets_nobody_reach_a_service(jail: Inside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        ran = jail.run(["/usr/bin/python3", "-c", code])
    assert "ConnectionRefusedError" in ran.stderr


def test_firejail_masks_and_reviews(jail: Inside) -> None:
    (jail.work / ".env").write_text("secret")
    (jail.work / "source").write_text("text")
    confinement = jail.allowing(work_read_only=True, masked=(jail.work / ".env",))
    ran = jail.run(["sh", "-c", "cat .env source; touch x; exit 3"], confinement)
    assert (ran.returncode, ran.stdout) == (3, "text")
    assert not (jail.work / "x").exists()


def test_firejail_leaves_no_daemon(jail: Inside) -> None:
    argv = ["sh", "-c", "setsid sleep 1000 & echo started; wait"]
    with jail.started(argv, jail.confinement()) as client:
        assert occupants(jail.work)
        client.kill()
        client.wait()
    assert occupants(jail.work) == []


def test_the_probe_is_content_with_firejail() -> None:
    if shutil.which("firejail") is None:
        pytest.skip("firejail is not installed; not proved here")
    assert probe(Wrapper("firejail")) == ()


# ---- podman, for real -------------------------------------------------------------------------

# crun refuses cgroups v1 with an empty v2 beside it, so that one is hidden from it alone.
WITHOUT_UNIFIED = (
    *("unshare", "--mount", "sh", "-c"),
    'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"',
    "sh",
)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[tuple[Inside, Wrapper]]:
    """A container whose root file system borrows this machine's /usr."""
    if shutil.which("podman") is None or os.geteuid() != 0:
        pytest.skip("needs podman and root; not proved here")
    root = tmp_path / "root"
    for name in ("usr", "proc", "dev", "sys", "tmp", "etc", "run"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    limits = ("--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    wrapper = Wrapper("podman", (*limits, "--volume=/usr:/usr:ro", "--rootfs", str(root)))
    with place(0) as inside:
        yield inside, wrapper


def test_podman_holds(container: tuple[Inside, Wrapper], victim: int) -> None:
    inside, wrapper = container
    assert held(looked(inside, wrapper, victim, WITHOUT_UNIFIED))
    assert (inside.work / "work-file").exists()
    assert not (inside.artifacts / "x").exists()


def test_podman_needs_to_be_told_to_stop(container: tuple[Inside, Wrapper]) -> None:
    inside, wrapper = container
    argv = ["sh", "-c", "echo started; exec sleep 1000"]
    with confine(wrapper, inside.confinement(), argv) as start:
        client = subprocess.Popen(
            [*WITHOUT_UNIFIED, *start.argv],
            env=start.environment,
            pass_fds=start.pass_fds,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"started\n"
        client.kill()
        client.wait()
        client.stdout.close()
        assert len(occupants(inside.work)) == 1
        assert start.stop_argv is not None
        stop = [*WITHOUT_UNIFIED, *start.stop_argv]
        subprocess.run(stop, env=start.environment, check=True, capture_output=True)
        assert occupants(inside.work) == []
        subprocess.run(stop, env=start.environment, check=True, capture_output=True)
