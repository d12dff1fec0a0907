"""The wrappers beside the default one: their argument lists, what is refused, and real runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agentorch.config import environment_file
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Network
from agentorch.sandbox import (
    Confinement,
    Wrapper,
    bubblewrap,
    confine,
    containers,
    firejail,
    seccomp,
    systemd_run,
    wrapper_syntax,
)
from agentorch.sandbox.host import Host, Masks
from agentorch.sandbox.probe import Facts, judge, read, remedy
from agentorch.sandbox.wrapper_table import WRAPPERS, refusals

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
    assert bubblewrap.encode(["--chdir", "/ä\udcff"]) == b"--chdir\0/\xc3\xa4\xff\0"


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
        confine(wrapper, PLACE, ["true"]),
    ):
        pass


@pytest.mark.parametrize("path", ["/srv/a,b", "/srv/a:b", "/srv/a b", "/srv/$x", "/srv/*", "/x\n"])
def test_paths_that_a_syntax_could_misread(path: str) -> None:
    with pytest.raises(Misconfigured, match="can't take the path"):
        wrapper_syntax.plain(Path(path), "docker")


def test_variables_of_several_lines() -> None:
    assert wrapper_syntax.environment_lines({"A": "1", "B": "#x=y"}, "docker") == b"A=1\nB=#x=y\n"
    with pytest.raises(Misconfigured, match="several lines: B"):
        wrapper_syntax.environment_lines({"A": "1", "B": "x\ny"}, "docker")
    quoted = environment_file.quote({"A": 'a"b\\c$d`e\nf'})
    assert quoted == b'A="a\\"b\\\\c\\$d\\`e\nf"\n'


def test_any_other_command_is_put_before() -> None:
    wrapper = Wrapper("nice", ("-n", "5"))
    with confine(wrapper, ALLOWED, ["claude", "-p"]) as start:
        assert start.argv[0].endswith("/nice")
        assert start.argv[1:] == ("-n", "5", "claude", "-p")
        assert start.environment == ALLOWED.environment


def test_no_wrapper_at_all() -> None:
    with confine(None, PLACE, ["claude", "-p"], alive_fd=3) as start:
        assert (start.argv, start.pass_fds) == (("claude", "-p"), (3,))


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
