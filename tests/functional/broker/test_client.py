"""What a step does with a broker: its own one, long paths, its account."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentorch.broker import client
from agentorch.broker.account import Account, End, ModelAccount, account_of, document
from agentorch.broker.grants import Grants, digest
from agentorch.config.settings import load
from agentorch.core.errors import TryAgain
from tests.support.broker import GRANT, KEY, Start, at
from tests.support.polling import eventually
from tests.support.provider import events, message, provider


def deep(top: Path) -> Path:
    """A directory whose name alone is longer than a socket's path may be."""
    path = top / ("d" * 100) / ("e" * 100)
    path.mkdir(parents=True)
    return path


def environment(url: str) -> dict[str, str]:
    given = at(url, AGENTORCH_ENV_FILE="/dev/null", HTTPS_PROXY="http://x", SECRET="s", PATH="/bin")
    return client.environment_of(load({**given, "OPENAI_API_KEY.codex": "own"}))


def test_a_step_has_a_broker_of_its_own(tmp_path: Path) -> None:
    directory = deep(tmp_path)
    with (
        provider(events(message())) as one,
        client.running(directory, environment(one.url)) as path,
    ):
        token = client.new_token()
        client.write_grant(client.grants_directory(directory), GRANT, token)
        assert client.account(path, token).calls == 0
        with client.connect(path) as connection:
            head = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\n"
            connection.sendall(head.encode() + b"Content-Length: 2\r\n\r\n{}")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: client.account(path, token).tokens_out == 100)
        assert one.asked[0].headers["x-api-key"] == KEY
    assert not path.exists()


def test_the_environment_of_a_broker() -> None:
    found = environment("http://127.0.0.1:1")
    assert found["OPENAI_API_KEY.codex"] == "own"
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert not {"HTTPS_PROXY", "SECRET"} & set(found)


def test_its_broker_dies_with_a_step(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from agentorch.broker import client
with client.running(Path({str(tmp_path)!r}), {environment("http://127.0.0.1:1")!r}) as path:
    grants = client.grants_directory(Path({str(tmp_path)!r}))
    client.write_grant(grants, client.Grant("j", "s", 1, "a", time.time() + 60), "token")
    client.account(path, "token")
    print("ready", flush=True)
    sys.stdin.read()
"""
    step = subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with step:
        assert step.stdout is not None
        assert step.stdout.readline() == b"ready\n"
        brokers = running_below(step.pid)
        assert brokers
        os.kill(step.pid, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in brokers))


def running_below(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(TryAgain):
        client.account(tmp_path / "socket", "token")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\nX: y",
    ],
)
def test_an_answer_that_is_not_whole(answer: bytes) -> None:
    with pytest.raises(ConnectionError):
        client.parse_answer(answer)


def test_an_answer() -> None:
    assert client.parse_answer(b"HTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\n{}") == (404, "{}")
    assert client.parse_answer(b"HTTP/1.1 200 OK\r\n\r\n\xff") == (200, "\ufffd")


def test_a_step_imports_neither_tls_nor_mail() -> None:
    heavy = "{'ssl', 'email', 'http.client', 'http.server', 'aiohttp', 'asyncio'}"
    script = f"import sys, agentorch.attempt.start; print(*{heavy} & set(sys.modules))"
    said = subprocess.check_output((sys.executable, "-c", script), text=True)
    assert said.split() == []


def test_an_unknown_token_has_no_account(start: Start) -> None:
    with pytest.raises(TryAgain, match="403"):
        client.account(start().socket, "unknown")


def test_an_account_comes_as_it_went() -> None:
    account = Account(
        providers={"anthropic": "key"},
        calls=3,
        cost_usd=0.25,
        models={"m": ModelAccount(1, 2, 3, None)},
        end=End("quota", "rate_limited", "words", 7.0),
    )
    account.note_refusal("what", "why")
    account.note_refusal("what", "why")
    account.note_connection("pypi.org:443")
    sent = document(account)
    assert sent["refused"] == [{"what": "what", "why": "why"}]
    assert sent["end"]["class"] == "quota"
    assert account_of(sent) == account
    with pytest.raises(ValueError, match="no account"):
        account_of({"calls": 1})


def test_an_account_is_bounded() -> None:
    account = Account()
    for number in range(1000):
        account.note_refusal(f"{number}", "x" * 5000)
        account.note_connection(f"{number}:443")
        account.model(f"{number}").calls += 1
        account.limits({f"x-ratelimit-{number}": "y" * 5000})
    assert len(str(document(account))) < 200_000
    assert account.models["other"].calls == 950


def test_a_grant_is_found_by_its_token_alone(tmp_path: Path) -> None:
    found = Grants(tmp_path)
    token = client.new_token()
    path = client.write_grant(tmp_path, GRANT, token)
    grant = found.find(token)
    assert grant is not None
    assert (grant.job_id, grant.digest) == (GRANT.job_id, digest(token))
    assert token not in path.read_text() + path.name
    assert found.find(digest(token)) is None
    assert found.find("../x") is None
    later = Grants(tmp_path, now=lambda: GRANT.expires_at)
    assert later.find(token) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"job_id": "x"}', '{"expires_at": "x"}'])
def test_a_malformed_grant_grants_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / f"{digest('token')}.json").write_text(content)
    assert Grants(tmp_path).find("token") is None


def test_a_link_is_no_grant(tmp_path: Path) -> None:
    path = client.write_grant(tmp_path, GRANT, "token")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to("elsewhere")
    assert Grants(tmp_path).find("token") is None
