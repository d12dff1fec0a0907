"""The systemd-run wrapper on a real systemd: as root, and in an ordinary user's manager."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import agentorch
from tests.support.machine import RELEASES, Machine, booted, missing
from tests.support.selection import one_for

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

LIBRARY = "/opt/agentorch"
UID = 1000

# A step's part, run inside the machine: confines a shell, and says what came of it as JSON.
STEP = """
import json, os, subprocess, sys
from pathlib import Path
from agentorch.core.job import Network
from agentorch.sandbox import Confinement, Wrapper, confine, occupants
top, script, after = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
where = Confinement(
    name="agentorch-" + top.name,
    work=top / "work",
    home=top / "home",
    artifacts=top / "artifacts",
    network=Network.DENY,
    environment={"PATH": "/usr/bin:/bin", "HOME": str(top / "home"), "KEY": 'a "b" $c\\nd'},
    masked=(top / "work" / "masked", top / "work" / ".env"),
)
argv = ["sh", "-c", script, "sh", str(top / "neighbour"), str(os.getpid())]
with confine(Wrapper("systemd-run"), where, argv) as start:
    client = subprocess.Popen(
        start.argv,
        env=start.environment,
        pass_fds=start.pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = {"first": client.stdout.readline()}
    if after == "kill":
        client.kill()
        client.wait()
        said["left"] = len(occupants(where.work))
        subprocess.run(start.stop_argv, check=True)
        said["stopped"] = len(occupants(where.work))
    # not communicate(): it loses what readline() took from the pipe beyond its line
    said["rest"], said["errors"] = client.stdout.read(), client.stderr.read()
    said["code"] = client.wait()
said["occupants"] = len(occupants(where.work))
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Ground:
    """A user of the machine, and the place that a job of that user has."""

    machine: Machine
    uid: int
    variables: Mapping[str, str]
    top: str

    def python(self, program: str, *arguments: str) -> str:
        environment = {**self.variables, "PYTHONPATH": LIBRARY, "PYTHONDONTWRITEBYTECODE": "1"}
        argv = ("python3", "-c", program, *arguments)
        ran = self.machine.run(*argv, uid=self.uid, environment=environment, check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout.decode()

    def step(self, script: str, after: str = "wait") -> dict[str, object]:
        answer: dict[str, object] = json.loads(self.python(STEP, self.top, script, after))
        return answer


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with booted({Path(agentorch.__file__).parent.parent: LIBRARY}, request.param) as running:
        yield running


@pytest.fixture(scope="module", params=[0, UID], ids=["root", "user"])
def ground(request: pytest.FixtureRequest, machine: Machine) -> Ground:
    variables = machine.add_user("agent", UID) if request.param else {}
    top = f"/srv/job{request.param}"
    script = """set -e
mkdir -p "$1/work/masked" "$1/home" "$1/artifacts"
echo secret >"$1/neighbour"
echo secret >"$1/work/masked/key"
echo secret >"$1/work/.env"
echo report >"$1/artifacts/report.md"
chown -R "$2:$2" "$1"
"""
    machine.run("sh", "-c", script, "sh", top, str(request.param))
    return Ground(machine, request.param, variables, top)


def test_it_holds(ground: Ground) -> None:
    script = """
echo started
cat "$1" .env masked/key /etc/shadow 2>/dev/null
touch /x /usr/x /etc/x /dev/x "$(dirname "$1")/artifacts/x" 2>/dev/null
( : >/proc/sys/kernel/core_pattern ) 2>/dev/null && echo "kernel written"
ls /root /home /var /run/dbus /run/systemd/journal 2>/dev/null
touch file "$HOME/file" /tmp/file
cat "$(dirname "$1")/artifacts/report.md"
(set -- /proc/[0-9]*; echo $#)
kill -0 "$2" 2>/dev/null && echo signalled
sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev
grep -c '^Cap.*0000000000000000$' /proc/self/status
sed -n 's/^NoNewPrivs:.//p' /proc/self/status
echo "$KEY"
exit 7
"""
    said = ground.step(script)
    rest = 'report\n2\nlo\n5\n1\na "b" $c\nd\n'
    assert (said["rest"], said["errors"], said["code"]) == (rest, "", 7)
    owners = ground.machine.output("stat", "-c", "%u", f"{ground.top}/work/file")
    assert owners == str(ground.uid)


def test_calls_are_refused(ground: Ground) -> None:
    script = """
echo started
python3 - <<'END'
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2")
for name, *arguments in (("keyctl", 0, -3, 0), ("ptrace", 0, 0, 0, 0), ("io_uring_setup", 1, 0)):
    words = [ctypes.c_long(word) for word in arguments]
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    failed = libc.syscall(ctypes.c_long(number), *words) == -1
    print(name, errno.errorcode[ctypes.get_errno()] if failed else "done")
try:
    socket.socket(40)
except OSError as problem:
    print("vsock", errno.errorcode[problem.errno])
END
"""
    said = ground.step(script)
    expected = "keyctl EPERM\nptrace EPERM\nio_uring_setup EPERM\nvsock EAFNOSUPPORT\n"
    assert (said["rest"], said["errors"]) == (expected, "")


def test_the_network_is_denied(ground: Ground) -> None:
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    said = ground.step(f'echo started; python3 -c "{connect}" 2>&1 | tail -n 1')
    assert said["rest"] == "OSError: [Errno 101] Network is unreachable\n"


def test_no_daemon_is_left(ground: Ground) -> None:
    said = ground.step("setsid sleep 1000 & echo started; exit 0")
    assert (said["code"], said["occupants"]) == (0, 0)


def test_killing_the_client_is_not_enough(ground: Ground) -> None:
    said = ground.step("echo started; setsid sleep 1000 & sleep 1000", "kill")
    assert said["left"] != 0
    assert (said["stopped"], said["occupants"]) == (0, 0)


def test_no_variable_and_no_argument_in_the_journal(ground: Ground) -> None:
    ground.step("echo started; : words-of-the-prompt")
    journal = ground.machine.output("journalctl", "--no-pager", "--output", "export")
    assert "words-of-the-prompt" not in journal
    assert 'b\\" $c' not in journal


@pytest.mark.parametrize("wrapper", ["systemd-run", "bwrap"])
def test_the_probe_is_content(ground: Ground, wrapper: str) -> None:
    program = f"from agentorch.sandbox import Wrapper, probe; print(probe(Wrapper({wrapper!r})))"
    assert ground.python(program) == "()\n"


def test_the_probe_says_what_is_missing(ground: Ground) -> None:
    if not ground.uid:
        pytest.skip("root's manager is always there")
    nowhere = Ground(ground.machine, ground.uid, {"HOME": "/home/agent"}, ground.top)
    program = "from agentorch.sandbox import Wrapper, probe; print(*probe(Wrapper('systemd-run')))"
    assert "loginctl enable-linger" in nowhere.python(program)
