"""The main job: a job goes in, a tested change comes out, and every way that it may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentorch.contracts.validate import problems_of
from tests.support.installation import Installation, step


def test_the_minimal_job_in_simulation(here: Installation) -> None:
    job_id = here.run("submit", "--goal", "say hello").stdout.strip()
    here.drain(ENABLE_REAL_CLI="0")
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == ("success", "done")
    assert problems_of(found["result"], "result") == []
    directory = here.artifacts(job_id)
    for name in ("job.json", "state.json", "result.json", "context.json", "report.md", "logs.txt"):
        assert (directory / name).stat().st_size, name
    for step_id in ("01_plan", "02_implement", "03_review"):
        for name in (
            "result.json",
            "report.md",
            "patch.diff",
            "logs.txt",
            "raw_stdout.txt",
            "raw_stderr.txt",
        ):
            assert (directory / "steps" / step_id / name).exists(), (step_id, name)
    here.git("apply", "--check", str(directory / "patch.diff"))
    assert (
        "steps/01_plan/report.md"
        in (directory / "steps/02_implement/attempts/1/prompt.md").read_text()
    )


def test_simulation_is_deterministic(here: Installation) -> None:
    ids = [here.run("submit", "--goal", "say hello").stdout.strip() for _ in range(2)]
    here.drain(ENABLE_REAL_CLI="0")
    patches = {(here.artifacts(job_id) / "patch.diff").read_bytes() for job_id in ids}
    assert len(patches) == 1


def test_a_real_change_is_made_checked_and_applies(here: Installation) -> None:
    job_id = here.submit(
        step(
            "mend",
            "echo world >> README; printf '#!/bin/sh\\nexit 0\\n' > test; chmod +x test; "
            "git add -A; git -c user.name=a -c user.email=a@localhost commit -qm mine",
        ),
        step(
            "check",
            "./test; grep -q world README; test -r $AGENTORCH_ARTIFACTS/steps/mend/patch.diff",
        ),
    )
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "success"
    assert [s["change_status"] for s in found["result"]["steps"]] == ["changed", "no_changes"]
    assert (here.repository / "README").read_text() == "hello\n"
    patch = here.run("diff", job_id).stdout
    (here.top / "p").write_text(patch)
    here.git("apply", str(here.top / "p"))
    assert (here.repository / "README").read_text() == "hello\nworld\n"
    assert (here.repository / "test").stat().st_mode & 0o100
    assert here.run("diff", job_id, "--step", "check").stdout == ""


def test_a_retry_starts_from_what_was_there_before_the_step(here: Installation) -> None:
    script = (
        "test ! -e litter; : > litter; echo again >> README; "
        "test -e $HOME/second || { : > $HOME/second; exit 1; }"
    )
    job_id = here.submit(step("a", script, max_retries=1))
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "success", found
    assert found["result"]["steps"][0]["attempts"] == 2
    assert (here.work(job_id) / "README").read_text() == "hello\nagain\n"


def test_a_failed_step_fails_the_job_and_says_so(here: Installation) -> None:
    job_id = here.submit(step("a", "echo trouble >&2; exit 7"), step("b", "true"))
    here.drain()
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == ("failed", "failed")
    error = found["result"]["steps"][0]["error"]
    assert error["code"] == "agent_exit_nonzero"
    assert error["details"]["exit_code"] == 7
    assert "trouble" in error["message"]
    assert found["result"]["error"]["code"] == "step_failed"
    assert "b" not in found["state"]["steps"]


def test_a_repair_loop_goes_back_until_the_check_is_content(here: Installation) -> None:
    job_id = here.submit(
        step("work", "echo x >> count"),
        step("check", "test $(wc -l < count) -ge 3", on_failure="goto:work"),
    )
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "success"
    assert found["state"]["steps"]["work"]["visits"] == 3
    assert (here.work(job_id) / "count").read_text() == "x\n" * 3


def test_a_timeout_says_so_and_leaves_no_process(here: Installation) -> None:
    job_id = here.submit(
        step("a", "trap '' TERM; (setsid sleep 3333 &); sleep 3333", timeout_sec=1)
    )
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "timeout"
    assert found["result"]["steps"][0]["error"]["code"] == "timeout"
    assert here.run("wait", job_id, code=124)


def test_an_idle_agent_is_stopped_and_a_quiet_busy_one_is_not(here: Installation) -> None:
    idle = here.submit(step("a", "sleep 60"))
    busy = here.submit(step("a", "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"))
    here.drain(RUNNER_MAX_IDLE_SEC="1")
    assert here.status(idle)["result"]["steps"][0]["outcome"] == "stalled"
    assert here.status(busy)["status"] == "success"


SECRET = "sk-ant-" + "api03-" + "Ab3dEf9hIj2kLm5nOp8qRs1tUv4wXy7z" * 3 + "AA"


@pytest.mark.parametrize("where", ["echo {}", "echo {} > key.txt", "echo {} >&2; exit 3"])
def test_a_secret_is_nowhere_in_what_a_step_leaves(here: Installation, where: str) -> None:
    half = len(SECRET) // 2
    script = f"a={SECRET[:half]}; b={SECRET[half:]}; " + where.format('"$a$b"')
    job_id = here.submit(step("a", script))
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "failed"
    assert found["result"]["steps"][0]["error"]["code"] == "secrets_check_failed"
    assert found["result"]["secrets_check"] == "failed"
    for path in here.artifacts(job_id).rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text("utf-8", "replace"), path
    assert SECRET not in here.run("logs", job_id).stdout


def test_a_secret_in_the_job_itself_is_in_its_own_file_alone(here: Installation) -> None:
    job_id = here.submit(step("a", f"true # {SECRET}"), goal=f"use {SECRET}")
    here.drain()
    assert here.status(job_id)["status"] == "success"
    holders = [
        p.name
        for p in here.artifacts(job_id).rglob("*")
        if p.is_file() and SECRET.encode() in p.read_bytes()
    ]
    assert holders == ["job.json"]


def test_a_variable_that_is_sensitive_is_redacted_by_its_value(here: Installation) -> None:
    variables = {
        "ENV_ALLOWLIST": "PATH,MY_WORD",
        "MY_WORD": "correct horse",
        "SENSITIVE_ENV_VARS": "OTHER_WORD",
        "OTHER_WORD": "battery staple",
    }
    job_id = here.submit(step("a", 'echo "$MY_WORD and battery staple; [${OTHER_WORD-}]"'))
    here.drain(**variables)
    logs = here.run("logs", job_id).stdout
    assert "correct horse and [redacted:" in logs
    assert "battery staple" not in logs


def test_an_agent_that_is_not_installed_is_refused_in_words(here: Installation) -> None:
    job_id = here.submit({"step_id": "a", "agent": "claude", "role": "planner", "prompt": "plan"})
    here.drain(ALLOWED_BINARIES="claude", PATH="/usr/bin:/bin")
    error = here.status(job_id)["result"]["steps"][0]["error"]
    assert error["code"] == "preflight"
    assert "'claude' is not on PATH" in error["message"]
    assert "npm install" in error["message"]


def test_an_agent_without_key_or_login_is_refused_in_words(here: Installation) -> None:
    job_id = here.submit({"step_id": "a", "agent": "openai", "role": "planner", "prompt": "plan"})
    here.drain(ALLOWED_BINARIES="python")
    result = here.status(job_id)["result"]["steps"][0]
    assert (result["outcome"], result["error"]["code"]) == ("auth", "preflight")
    assert "OPENAI_API_KEY" in result["error"]["message"]
    assert result["attempts"] == 1


def test_a_binary_that_is_not_allowed_is_refused(here: Installation) -> None:
    job_id = here.submit(step("a", "true", max_retries=3))
    here.drain(ALLOWED_BINARIES="git")
    result = here.status(job_id)["result"]["steps"][0]
    assert result["error"]["code"] in ("policy", "preflight")
    assert result["attempts"] == 1


def test_the_jobs_policy_cannot_loosen_the_servers(here: Installation) -> None:
    job_id = here.submit(
        step(
            "a",
            "ls /sys/class/net > net 2>/dev/null || true; cat /proc/net/dev > dev; echo $$ > pid",
        ),
        policy={"sandbox": False, "network": "allow"},
    )
    here.drain()
    assert here.status(job_id)["status"] == "success"
    devices = (here.work(job_id) / "dev").read_text()
    assert {line.split(":")[0].strip() for line in devices.splitlines()[2:]} == {"lo"}
    assert int((here.work(job_id) / "pid").read_text()) < 10


def test_without_a_sandbox_nothing_outlives_the_step_either(here: Installation) -> None:
    stubborn = "setsid sh -c 'trap \"\" TERM; : > started; sleep 3333.25'"
    script = f"{stubborn} & while ! [ -e started ]; do :; done"
    job_id = here.submit(step("a", script), policy={"sandbox": False})
    here.drain(SANDBOX="0")
    assert here.status(job_id)["status"] == "success"
    sleeping = [
        p for p in Path("/proc").glob("[0-9]*/cmdline") if _reads(p).find(b"sleep\x003333.25") >= 0
    ]
    assert not sleeping


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_handoff_gives_the_patch_of_the_latest_success(here: Installation) -> None:
    job_id = here.submit(
        step("a", "echo new > file"),
        step("b", "true"),
        artifact_handoff="patch_first",
    )
    here.drain()
    prompt = (here.artifacts(job_id) / "steps/b/attempts/1/prompt.md").read_text()
    assert "=== BEGIN ARTIFACT: steps/a/patch.diff ===" in prompt
    assert "+new" in prompt


def test_patches_of_earlier_steps_are_applied_once(here: Installation) -> None:
    job_id = here.submit(
        step("a", "echo new > file"),
        step("b", "rm file"),
        step("c", "grep -q new file", apply_patches_from=["a", "steps/a/patch.diff"]),
        step("d", "true", apply_patches_from=["steps/zz/patch.diff"]),
    )
    here.drain()
    found = here.status(job_id)["result"]["steps"]
    assert [s["status"] for s in found] == ["success", "success", "success", "failed"]
    assert found[3]["error"]["code"] == "missing_patch"


def test_the_conversation_grows_by_two_messages_a_step(here: Installation) -> None:
    job_id = here.submit(
        step("a", "true"), step("b", "true"), context_window=[{"role": "user", "content": "hi"}]
    )
    here.drain()
    context = json.loads((here.artifacts(job_id) / "context.json").read_text())
    assert [m["role"] for m in context["messages"]] == [
        "user",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert "step b" in context["messages"][-1]["content"]


def test_a_workspace_that_the_agent_made_off_with_is_a_clear_outcome(here: Installation) -> None:
    script = 'cd /; rm -rf "$AGENTORCH_WORK"; ln -s /etc "$AGENTORCH_WORK"'
    steps = (step("before", "echo new > file"), step("a", script))
    job_id = here.submit(*steps, policy={"sandbox": False})
    here.drain(SANDBOX="0")
    found = here.status(job_id)
    assert found["queue_state"] == "failed"
    assert found["result"]["steps"][1]["error"]["code"] == "workspace_lost"
    assert "+new" in here.run("diff", job_id).stdout


def test_a_source_that_is_gone_is_said(here: Installation) -> None:
    (here.top / "nowhere").mkdir()
    job_id = here.submit(step("a", "true"), workdir=str(here.top / "nowhere"))
    (here.top / "nowhere").rmdir()
    here.drain()
    error = here.status(job_id)["result"]["steps"][0]["error"]
    assert error["code"] == "source_missing"
    assert "nowhere" in error["message"]


def test_a_script_is_told_of_the_hosts_and_refused_all_others(here: Installation) -> None:
    here.environment["ALLOWED_HOSTS"] = "pypi.org,*.debian.org"
    opens = "import urllib.request as r; r.urlopen('https://example.org/')"
    job_id = here.submit(
        step("a", f'echo "$HTTPS_PROXY" > proxy; python3 -c "{opens}" 2> said || true'),
        policy={"allow_hosts": ["pypi.org"]},
    )
    here.drain()
    result = here.status(job_id)["result"]["steps"][0]
    assert result["outcome"] == "success", result
    refused = result["network"]["refused"]
    why = "example.org:443 is not among the hosts that this step may reach"
    assert refused == [{"what": "CONNECT", "why": why}]
    assert "403" in (here.work(job_id) / "said").read_text()
    assert (here.work(job_id) / "proxy").read_text().startswith("http://job:")


def test_a_host_that_is_not_on_the_servers_list_is_refused_at_the_door(here: Installation) -> None:
    document = {"goal": "g", "steps": [step("a", "true")], "policy": {"allow_hosts": ["pypi.org"]}}
    done = here.run("submit", "-", given=json.dumps(document), code=2)
    assert ".policy.allow_hosts[0]: 'pypi.org' is not allowed here" in done.stderr
