"""The wrappers beside the default one: their argument lists, what is refused, and real runs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agentorch.errors import Misconfigured
from agentorch.job import Network
from agentorch.sandbox import (
    Confinement,
    Wrapper,
    bubblewrap,
    confined,
    containers,
    firejail,
    occupants,
    probe,
    programs,
    seccomp,
    spelling,
    systemd_run,
)
from agentorch.sandbox.host import Host, Masks
from agentorch.sandbox.probe import Facts, judge, read, remedy
from agentorch.sandbox.wrappers import WRAPPERS, refusals

from .inside import NOBODY, Inside, as_user, place

PLACE = Confinement(
    name="agentorch-step-j-s-a1",
    work=Path("/srv/j/work"),
    home=Path("/srv/j/home"),
    artifacts=Path("/srv/a/j"),
    network=Network.DENY,
    environment={"PATH": "/usr/bin", "KEY": "k"},
    read_only=(Path("/opt/node"),),
)
MASKS = Masks((Path("/srv/j/work/.ssh"),), (Path("/srv/j/work/.env"),))
HOST = Host(
    user=(996, 995),
    links={"/bin": "usr/bin"},
    directories=("/lib64",),
    masks=MASKS,
    present=frozenset({PLACE.artifacts, Path("/opt/node")}),
)
ALLOWED = replace(PLACE, network=Network.ALLOW)
REVIEW = replace(PLACE, work_read_only=True)


# ---- bwrap ------------------------------------------------------------------------------------


def words_after(options: list[str], word: str, count: int) -> list[tuple[str, ...]]:
    """The arguments of each `word` in a list of options."""
    places = [at for at, option in enumerate(options) if option == word]
    return [tuple(options[at + 1 : at + 1 + count]) for at in places]


def test_bwrap_shows_nothing_on_its_command_line() -> None:
    assert bubblewrap.client_argv(Wrapper("/usr/bin/bwrap"), 7, ["claude", "--print"]) == (
        *("/usr/bin/bwrap", "--args", "7"),
        *("--", "claude", "--print"),
    )


def test_bwrap_options_begin_with_the_namespaces() -> None:
    options = bubblewrap.options_argv(PLACE, HOST, bubblewrap.Descriptors(5, 6))
    assert options[: options.index("--ro-bind")] == [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--unshare-net",
        "--die-with-parent",
        "--new-session",
        *("--hostname", "agentorch"),
        *("--cap-drop", "ALL"),
        *("--seccomp", "5"),
        *("--sync-fd", "6"),
        "--clearenv",
        *("--setenv", "PATH", "/usr/bin"),
        *("--setenv", "KEY", "k"),
    ]


def test_bwrap_options_end_with_what_is_ours() -> None:
    extra = ("--ro-bind", "/data", "/data")
    options = bubblewrap.options_argv(PLACE, HOST, bubblewrap.Descriptors(5), extra)
    assert "--sync-fd" not in options
    assert options[options.index("/opt/node") - 1 :] == [
        *("--ro-bind-try", "/opt/node", "/opt/node"),
        *("--ro-bind-try", "/srv/a/j", "/srv/a/j"),
        *("--bind", "/srv/j/work", "/srv/j/work"),
        *("--bind", "/srv/j/home", "/srv/j/home"),
        *("--tmpfs", "/srv/j/work/.ssh"),
        *("--remount-ro", "/srv/j/work/.ssh"),
        *("--ro-bind", "/dev/null", "/srv/j/work/.env"),
        *extra,
        *("--remount-ro", "/"),
        *("--chdir", "/srv/j/work"),
    ]


def test_bwrap_repeats_links_and_shows_directories() -> None:
    options = bubblewrap.options_argv(PLACE, HOST, bubblewrap.Descriptors(5))
    assert ("usr/bin", "/bin") in words_after(options, "--symlink", 2)
    assert ("/lib64", "/lib64") in words_after(options, "--ro-bind", 2)


def test_bwrap_allow_and_review() -> None:
    allowed = bubblewrap.options_argv(ALLOWED, HOST, bubblewrap.Descriptors(5))
    assert "--unshare-net" not in allowed
    assert "/etc/resolv.conf" in allowed
    review = bubblewrap.options_argv(REVIEW, HOST, bubblewrap.Descriptors(5))
    assert words_after(review, "--bind", 1) == [("/srv/j/home",)]


def test_bwrap_options_are_encoded_with_a_nul_each() -> None:
    assert bubblewrap.encoded(["--chdir", "/ä\udcff"]) == b"--chdir\0/\xc3\xa4\xff\0"


def test_the_filter_has_no_rule_twice() -> None:
    rules = seccomp.rules()
    assert len(set(rules)) == len(rules)
    assert seccomp.program() is seccomp.program()


# ---- docker and podman ------------------------------------------------------------------------


def test_docker() -> None:
    wrapper = Wrapper("docker", ("--memory=1g", "debian:12"))
    assert containers.run_argv(wrapper, PLACE, HOST, ["sh", "-c", "x"], variables_fd=9) == (
        *("docker", "run", "--rm", "--interactive"),
        *("--name", "agentorch-step-j-s-a1"),
        *("--network", "none"),
        "--read-only",
        *("--cap-drop", "all"),
        *("--security-opt", "no-new-privileges"),
        *("--user", "996:995"),
        *("--env-file", "/dev/fd/9"),
        *("--tmpfs", "/tmp:rw,mode=1777,size=1073741824"),
        *("--mount", "type=bind,source=/opt/node,destination=/opt/node,readonly"),
        *("--mount", "type=bind,source=/srv/a/j,destination=/srv/a/j,readonly"),
        *("--mount", "type=bind,source=/srv/j/home,destination=/srv/j/home"),
        *("--mount", "type=bind,source=/srv/j/work,destination=/srv/j/work"),
        *("--mount", "type=tmpfs,destination=/srv/j/work/.ssh"),
        *("--mount", "type=bind,source=/dev/null,destination=/srv/j/work/.env,readonly"),
        *("--workdir", "/srv/j/work"),
        *("--memory=1g", "debian:12"),
        *("sh", "-c", "x"),
    )
    assert containers.remove_argv(wrapper, PLACE) == ("docker", "rm", "--force", PLACE.name)


def test_podman_differs() -> None:
    wrapper = Wrapper("podman", ("--rootfs", "/srv/root"))
    argv = containers.run_argv(wrapper, ALLOWED, HOST, ["true"], variables_fd=9)
    assert argv[argv.index("--http-proxy=false") + 1 :][:2] == ("--userns", "keep-id")
    assert argv[argv.index("--network") + 1] == "host"
    assert argv[-3:] == ("--rootfs", "/srv/root", "true")
    assert containers.remove_argv(wrapper, PLACE) == (
        *("podman", "rm", "--force"),
        *("--time", "0", "--ignore", PLACE.name),
    )


def test_a_client_gets_none_of_our_keys() -> None:
    server = {"PATH": "/bin", "HOME": "/root", "DOCKER_HOST": "unix:///x", "OPENAI_API_KEY": "k"}
    assert set(containers.client_environment(server)) == {"PATH", "HOME", "DOCKER_HOST"}
    assert systemd_run.client_environment(server) == {"PATH": "/bin"}


# ---- systemd-run ------------------------------------------------------------------------------


def test_systemd_run_as_root_and_as_a_user() -> None:
    variables = Path("/proc/7/fd/8")
    wrapper = Wrapper("systemd-run", ("--property=MemoryMax=1G",))
    argv = ["sh", "-c", "echo $HOME"]
    mine = systemd_run.run_argv(wrapper, PLACE, HOST, argv, variables=variables)
    assert mine[:11] == (
        *("systemd-run", "--user", "--quiet", "--pipe", "--wait", "--collect"),
        *("--service-type", "exec"),
        *("--unit", "agentorch-step-j-s-a1.service"),
        "--description",
    )
    properties = {word for before, word in pairwise(mine) if before == "--property"}
    assert properties >= {
        "EnvironmentFile=/proc/7/fd/8",
        "PrivateNetwork=yes",
        "TemporaryFileSystem=/:ro",
        "BindPaths=/srv/j/work",
        "BindPaths=/srv/j/home",
        "BindReadOnlyPaths=-/srv/a/j",
        "BindReadOnlyPaths=/dev/null:/srv/j/work/.env",
        "TemporaryFileSystem=/srv/j/work/.ssh:ro",
        "PrivateUsers=yes",
        "KillSignal=SIGKILL",
    }
    assert mine[-4:] == ("--", "sh", "-c", "echo $$HOME")
    root = systemd_run.run_argv(
        wrapper, ALLOWED, replace(HOST, user=(0, 0)), argv, variables=variables
    )
    assert root[1] == "--system"
    assert {"PrivateNetwork=no", "BindReadOnlyPaths=-/etc/resolv.conf"} <= set(root)
    assert "PrivateUsers=yes" not in root
    assert 'mount -o remount,bind,ro /proc && exec "$$@"' in root


def test_systemd_run_stops_its_unit() -> None:
    assert systemd_run.stop_argv(PLACE, (996, 995)) == (
        *("systemctl", "--user", "stop"),
        "agentorch-step-j-s-a1.service",
    )
    assert systemd_run.stop_argv(PLACE, (0, 0))[1] == "--system"


# ---- firejail ---------------------------------------------------------------------------------


def test_firejail() -> None:
    hidden = [Path("/boot"), Path("/opt"), Path("/run/dbus"), Path("/srv")]
    argv = firejail.jail_argv(Wrapper("firejail"), REVIEW, HOST, ["true"], hidden=hidden)
    assert argv[:14] == (
        *("firejail", "--quiet", "--noprofile"),
        *("--deterministic-exit-code", "--deterministic-shutdown"),
        "--net=none",
        "--private-dev",
        "--ipc-namespace",
        "--noroot",
        "--caps.drop=all",
        "--nonewprivs",
        "--seccomp",
        "--dbus-user=none",
        "--dbus-system=none",
    )
    assert {word for word in argv if word.startswith("--blacklist")} == {
        "--blacklist=/boot",
        "--blacklist=/run/dbus",
        "--blacklist=/srv/j/work/.ssh",
        "--blacklist=/srv/j/work/.env",
    }
    assert {word for word in argv if word.startswith("--read-only")} == {
        "--read-only=/",
        "--read-only=/opt/node",
        "--read-only=/srv/a/j",
        "--read-only=/srv/j/work",
    }
    assert argv[-3:] == ("--private-cwd=/srv/j/work", "--", "true")


# ---- what is refused --------------------------------------------------------------------------


def test_what_an_unknown_wrapper_can_not_promise() -> None:
    wrapper = Wrapper("nice", ("-n", "5"))
    assert refusals(wrapper, ALLOWED) == ()
    asked = replace(REVIEW, masked=(Path("/srv/j/work/.env"),))
    known = "(known: bwrap, firejail, docker, podman, systemd-run)"
    assert refusals(wrapper, asked) == (
        f"SANDBOX_WRAPPER: 'nice' is not known to enforce network deny {known}",
        f"SANDBOX_WRAPPER: 'nice' is not known to enforce a read-only workspace {known}",
        f"SANDBOX_WRAPPER: 'nice' is not known to enforce masked paths {known}",
    )


def test_known_wrappers_are_refused_nothing() -> None:
    asked = replace(REVIEW, masked=(Path("/srv/j/work/.env"),))
    assert [refusals(Wrapper(name, ("image",)), asked) for name in WRAPPERS] == [()] * 5


@pytest.mark.parametrize("name", ["docker", "/usr/local/bin/podman"])
def test_a_container_without_an_image(name: str) -> None:
    assert "needs an image" in refusals(Wrapper(name), PLACE)[0]


def test_a_wrapper_that_is_not_installed(tmp_path: Path) -> None:
    wrapper = Wrapper(str(tmp_path / "bwrap"))
    with (
        pytest.raises(Misconfigured, match="install the package bubblewrap"),
        confined(wrapper, PLACE, ["true"]),
    ):
        pass


@pytest.mark.parametrize("path", ["/srv/a,b", "/srv/a:b", "/srv/a b", "/srv/$x", "/srv/*", "/x\n"])
def test_paths_that_a_syntax_could_misread(path: str) -> None:
    with pytest.raises(Misconfigured, match="can't take the path"):
        spelling.plain(Path(path), "docker")


def test_variables_of_several_lines() -> None:
    assert spelling.environment_lines({"A": "1", "B": "#x=y"}, "docker") == b"A=1\nB=#x=y\n"
    with pytest.raises(Misconfigured, match="several lines: B"):
        spelling.environment_lines({"A": "1", "B": "x\ny"}, "docker")
    quoted = spelling.environment_quoted({"A": 'a"b\\c$d`e\nf'})
    assert quoted == b'A="a\\"b\\\\c\\$d\\`e\nf"\n'


def test_any_other_command_is_put_before() -> None:
    wrapper = Wrapper("nice", ("-n", "5"))
    with confined(wrapper, ALLOWED, ["claude", "-p"]) as start:
        assert start.argv[0].endswith("/nice")
        assert start.argv[1:] == ("-n", "5", "claude", "-p")
        assert start.environment == ALLOWED.environment


def test_no_wrapper_at_all() -> None:
    with confined(None, PLACE, ["claude", "-p"], alive_fd=3) as start:
        assert (start.argv, start.pass_fds) == (("claude", "-p"), (3,))


# ---- programs ---------------------------------------------------------------------------------


def needed(top: Path, name: str, *private: Path) -> programs.Needed:
    return programs.needed([name], {"PATH": f"{top}/bin:{top}/.local/bin:/usr/bin"}, private)


def script(path: Path, first: str = "#!/bin/sh") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n")
    path.chmod(0o755)
    return path


def test_a_program_of_the_system_needs_nothing(tmp_path: Path) -> None:
    assert needed(tmp_path, "git") == programs.Needed()
    assert needed(tmp_path, "no-such-program") == programs.Needed()
    assert needed(tmp_path, "./bin/x") == programs.Needed()


def test_a_program_brings_its_prefix(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x") == programs.Needed((tmp_path,))


def test_a_prefix_that_holds_something_private_is_not_shown(tmp_path: Path) -> None:
    program = script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x", tmp_path / "work") == programs.Needed((program,))


def test_a_program_of_the_work_tree_is_shown_by_the_work_tree(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x", tmp_path / "bin") == programs.Needed()


def test_a_link_in_a_local_directory_is_repeated(tmp_path: Path) -> None:
    target = script(tmp_path / ".local/share/x/versions/1.0")
    link = tmp_path / ".local/bin/x"
    link.parent.mkdir()
    link.symlink_to("../share/x/versions/1.0")
    expected = programs.Needed((target,), {str(link): "../share/x/versions/1.0"})
    assert needed(tmp_path, "x") == expected


def test_an_interpreter_is_needed_too(tmp_path: Path) -> None:
    script(tmp_path / "node" / "bin" / "node")
    program = script(tmp_path / "x" / "bin" / "x", "#!/usr/bin/env -S node --flag")
    path = f"{tmp_path}/x/bin:{tmp_path}/node/bin"
    found = programs.needed([str(program)], {"PATH": path}, ())
    assert found == programs.Needed((tmp_path / "x", tmp_path / "node"))


# ---- the probe's words ------------------------------------------------------------------------

GOOD = Facts(True, "pid:[1]", False, False, True, frozenset({"lo"}))  # noqa: FBT003


def test_the_probe_reads_what_its_program_prints() -> None:
    text = "started yes\nnamespace pid:[1]\nwork writable\ninterface lo\nfinished yes\n"
    assert read(text) == GOOD
    bad = "namespace \nneighbour visible\nroot writable\ninterface lo\ninterface eth0\n"
    seen = Facts(False, "", True, True, False, frozenset({"lo", "eth0"}))  # noqa: FBT003
    assert read(bad) == seen
    assert len(judge(Wrapper(), Network.DENY, seen, "pid:[0]")) == 5
    assert len(judge(Wrapper(), Network.ALLOW, seen, "pid:[0]")) == 4
    assert judge(Wrapper(), Network.DENY, GOOD, "pid:[0]") == ()
    assert "processes" in judge(Wrapper(), Network.DENY, GOOD, "pid:[1]")[0]


def test_remedies() -> None:
    assert "sysctl" in remedy("bwrap: No permissions to create new namespace, likely because ...")
    assert remedy("something else") == ""


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
    with confined(wrapper, inside.confinement({"KEY": "a b$c"}), argv) as start:
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
    with confined(wrapper, inside.confinement(), argv) as start:
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
