"""Jobs that wait for a human: who hears of it, how often, and what becomes of those too long."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentorch.config.settings import load
from agentorch.core.job import Expiry, Waiting
from agentorch.decisions.expire import end, find_expired
from agentorch.jobqueue.jobqueue import Queue
from agentorch.notify import announce
from agentorch.notify.hooks import hooks_in, run
from agentorch.systemd.journal import Journal
from tests.support.installation import ROOT, Installation, step
from tests.support.polling import eventually

EXAMPLES = ROOT / "examples/notify.d"
HEARS = 'cat >>"$HOME/$(basename "$0").heard"'
LONG_AGO = "2020-01-01T00:00:00.000000Z"


@pytest.fixture
def told(here: Installation) -> Installation:
    """With a folder of programs, and the variables of the test's own."""
    here.environment["AGENTORCH_ENV_FILE"] = "/dev/null"
    (here.top / "notify.d").mkdir()
    return here


def program(here: Installation, name: str, script: str = HEARS) -> Path:
    path = here.top / "notify.d" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def heard(here: Installation, name: str) -> list[dict[str, Any]]:
    path = here.top / f"{name}.heard"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def asking(here: Installation, **fields: Any) -> str:
    """A job that was run, and waits for a human."""
    job_id = here.submit({**step("one", "exit 1"), "on_failure": "ask_human"}, **fields)
    here.drain()
    return job_id


def unstarted(here: Installation, **policy: Any) -> str:
    """A job that waits for its approval."""
    return here.submit(step("one", "true"), policy={"requires_approval": True, **policy})


def announced(here: Installation, job_id: str) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((here.artifacts(job_id) / "announced").read_text())
    return known


# ---- what is told -----------------------------------------------------------------------------


def test_every_program_hears_once_of_each_time_a_job_begins_to_wait(told: Installation) -> None:
    program(told, "one")
    program(told, "two")
    job_id = asking(told)
    for _ in range(2):
        told.run("announce")
    (said,) = heard(told, "one")
    assert heard(told, "two") == [said]
    assert {name: said[name] for name in ("event", "job_id", "project_id", "goal", "step")} == {
        "event": "awaiting_approval",
        "job_id": job_id,
        "project_id": None,
        "goal": "a goal",
        "step": "one",
    }
    assert said["reason"] == "step one failed (agent_error)"
    assert said["question"] is None
    told.run("approve", job_id)
    told.run("announce")
    told.drain()  # it fails again, and asks again
    told.run("announce")
    assert [one["event"] for one in heard(told, "one")] == ["awaiting_approval"] * 2
    assert heard(told, "one")[1]["since"] > said["since"]


def test_what_it_says_to_do_is_what_can_be_done(told: Installation) -> None:
    program(told, "one")
    unstarted(told)
    told.run("announce")
    (said,) = heard(told, "one")
    assert said["reason"] == "it is to be approved before it starts"
    for name in ("look", "approve"):
        command, *arguments = said["how_to"][name].split()
        told.run(command.removeprefix("agentorch-"), *arguments)
    # what was shown is no longer so
    command, *arguments = said["how_to"]["reject"].split()
    told.run(command.removeprefix("agentorch-"), *arguments, code=2)


def test_a_job_that_its_own_budget_holds_is_told_and_one_that_a_human_holds_is_not(
    told: Installation,
) -> None:
    program(told, "one")
    mine, ours = told.submit(step("one", "true")), told.submit(step("one", "true"))
    told.run("hold", mine, ours)
    hold = {"who": None, "reason": "its budget is used up", "when": LONG_AGO}
    (told.artifacts(ours) / "hold").write_text(json.dumps(hold))
    told.run("announce")
    (said,) = heard(told, "one")
    assert (said["event"], said["job_id"]) == ("held", ours)
    assert (said["reason"], said["since"]) == ("its budget is used up", LONG_AGO)
    command, *arguments = said["how_to"]["release"].split()
    told.run(command.removeprefix("agentorch-"), *arguments)


def test_the_environment_has_the_same_and_no_secret(told: Installation) -> None:
    program(told, "one", 'env >"$HOME/env"')
    told.submit(step("one", "true"), goal="two\nlines", policy={"requires_approval": True})
    told.run("announce", WEBHOOK_TOKENS="secret-token=*", ANTHROPIC_API_KEY="a-key", MAILTO="me")
    said = (told.top / "env").read_text()
    lines = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert lines["AGENTORCH_GOAL"] == "two lines"
    assert lines["AGENTORCH_EVENT"] == "awaiting_approval"
    assert lines["MAILTO"] == "me"
    assert "secret-token" not in said
    assert "a-key" not in said
    assert "agentorch-approve --hash=" in said


def test_a_dry_run_tells_nobody_and_changes_nothing(told: Installation) -> None:
    program(told, "one")
    job_id = unstarted(told)
    (line,) = told.run("announce", "--dry-run").stdout.splitlines()
    assert json.loads(line)["programs"] == ["one"]
    assert json.loads(line)["job_id"] == job_id
    assert heard(told, "one") == []
    assert not (told.artifacts(job_id) / "announced").exists()


def test_nothing_is_made_where_nobody_is_to_be_told(told: Installation) -> None:
    told.run("announce")
    assert not told.state.exists()
    job_id = unstarted(told)
    assert told.run("announce").stderr == ""
    assert not (told.artifacts(job_id) / "announced").exists()


# ---- programs that fail -----------------------------------------------------------------------


def test_one_that_fails_is_told_again_later_and_disturbs_no_other(told: Installation) -> None:
    program(told, "bad", f"{HEARS}; exit 3")
    program(told, "good")
    job_id = unstarted(told)
    said = told.run("announce").stderr
    assert "notify.d/bad: it exited with 3; again at " in said
    told.run("announce")  # it is not due yet
    assert (len(heard(told, "bad")), len(heard(told, "good"))) == (1, 1)
    due_now(told, job_id)
    program(told, "bad")
    told.run("announce")
    assert (len(heard(told, "bad")), len(heard(told, "good"))) == (2, 1)
    assert announced(told, job_id)["failed"] == {}


def due_now(here: Installation, job_id: str) -> None:
    """What failed has waited long enough."""
    known = announced(here, job_id)
    for failure in known["failed"].values():
        failure["again_at"] = LONG_AGO
    (here.artifacts(job_id) / "announced").write_text(json.dumps(known))


def test_after_a_day_it_is_given_up(told: Installation) -> None:
    program(told, "bad", "exit 3")
    job_id = unstarted(told)
    told.run("announce")
    known = announced(told, job_id)
    known["failed"]["bad"] |= {"first_at": LONG_AGO, "again_at": LONG_AGO}
    (told.artifacts(job_id) / "announced").write_text(json.dumps(known))
    assert "it is run no more for this" in told.run("announce").stderr
    assert told.run("announce").stderr == ""
    assert announced(told, job_id)["failed"]["bad"]["tries"] == 2


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/nowhere/at/all", "No such file"), ("no program", "Exec format error")],
)
def test_one_that_can_not_be_run_is_as_one_that_fails(
    told: Installation, script: str, words: str
) -> None:
    program(told, "good")
    program(told, "bad").write_text(f"{script}\n")
    unstarted(told)
    assert f"notify.d/bad: {words}" in told.run("announce").stderr
    assert len(heard(told, "good")) == 1


def test_others_files_are_not_run_and_that_is_said(told: Installation) -> None:
    program(told, "good")
    other = program(told, "other")
    os.chown(other, 12345, -1)
    program(told, "text").chmod(0o644)
    program(told, "old.dpkg-old")
    (told.top / "notify.d/gone").symlink_to("nowhere")
    unstarted(told)
    said = told.run("announce").stderr
    assert "notify.d/other is not run: it belongs to user 12345" in said
    assert "notify.d/gone is not run: No such file" in said
    assert "text" not in said
    assert "dpkg" not in said
    assert sorted(path.name for path in told.top.glob("*.heard")) == ["good.heard"]


def test_one_that_hangs_is_killed_with_all_that_it_started(told: Installation) -> None:
    hangs = program(
        told, "hangs", 'echo $$ >"$HOME/pids"; sleep 98765 & echo $! >>"$HOME/pids"; wait'
    )
    began = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "HOME": str(told.top)}
    assert asyncio.run(run(hangs, b"{}", environment, 0.5)) == "it was killed after 0.5 s"
    assert time.monotonic() - began < 20
    pids = (told.top / "pids").read_text().split()
    assert len(pids) == 2
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_that_hangs_does_not_keep_the_others(told: Installation) -> None:
    """The other one has heard of every job before the first has been killed for one."""
    program(told, "hangs", f"sleep 1; {HEARS}; exec sleep 98765")
    program(told, "other", HEARS)
    for _ in range(3):
        unstarted(told)
    settings = load(told.environment)
    queue = Queue(settings.roots)
    hooks = hooks_in(settings.notify_directory, os.geteuid())
    entries = announce.due_programs(queue, hooks.programs, datetime.now(UTC))
    journal = Journal("agentorch-announce", settings)
    environment = dict(settings.environment)
    assert environment["HOME"] == str(told.top)
    asyncio.run(announce.announce(queue, settings, entries[:2], journal, 2))
    assert len(heard(told, "other")) == 2
    reasons = [
        announced(told, entry.waiting.key.job_id)["failed"]["hangs"]["reason"]
        for entry in entries[:2]
    ]
    assert reasons == ["it was killed after 2 s"] * 2


def test_one_that_does_not_read_is_no_failure(told: Installation) -> None:
    program(told, "deaf", "exit 0")
    job_id = told.submit(step("one", "true"), goal="x" * 5000, policy={"requires_approval": True})
    told.run("announce")
    assert announced(told, job_id)["told"] == ["deaf"]


# ---- crashes, and several at once -------------------------------------------------------------


def test_a_program_whose_run_a_kill_ended_is_run_again(told: Installation) -> None:
    program(told, "first")
    program(told, "second", f'{HEARS}; [ -e "$HOME/calm" ] || sleep 98765')
    job_id = unstarted(told)
    process = told.start("announce")
    eventually(lambda: heard(told, "second") and (told.artifacts(job_id) / "announced").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = subprocess.run(
        ["pgrep", "-f", "sleep 98765"], capture_output=True, text=True, check=False
    )
    for pid in left.stdout.split():
        if f"HOME={told.top}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
    (told.top / "calm").touch()
    told.run("announce")
    told.run("announce")
    assert (len(heard(told, "first")), len(heard(told, "second"))) == (1, 2)


def test_several_at_once_tell_once(told: Installation) -> None:
    program(told, "one", f"sleep 0.2; {HEARS}")
    for _ in range(3):
        unstarted(told)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: told.run("announce"), range(4)))
    assert len({one["job_id"] for one in heard(told, "one")}) == len(heard(told, "one")) == 3


def test_a_job_that_is_decided_on_meanwhile_is_told_no_more(told: Installation) -> None:
    decided = unstarted(told)
    late = unstarted(told)
    first, second = sorted([decided, late])
    program(told, "one", f'{HEARS}; "$APPROVE" {second}')
    told.run("announce", APPROVE=str(approver(told)))
    assert [one["job_id"] for one in heard(told, "one")] == [first]


def approver(here: Installation) -> Path:
    path = here.top / "approve"
    path.write_text(f'#!/bin/sh\nexec {" ".join(here.argv("approve"))} "$@"\n')
    path.chmod(0o755)
    return path


def test_a_job_that_is_removed_meanwhile_hurts_nobody(told: Installation) -> None:
    job_id = unstarted(told)
    program(told, "one", f'rm -r "{told.artifacts(job_id)}"')
    assert "Traceback" not in told.run("announce").stderr


# ---- the examples -----------------------------------------------------------------------------


def double(here: Installation, name: str) -> None:
    """A program on PATH that leaves what it was called with, and what it read."""
    path = here.top / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '#!/bin/sh\nfor one; do printf "%s\\n" "$one"; done >"$0.argv"\ncat >"$0.stdin"\n'
    )
    path.chmod(0o755)


def installed(here: Installation, name: str) -> str:
    """An example among the programs; the PATH with which to tell it."""
    (here.top / "notify.d" / name).write_bytes((EXAMPLES / name).read_bytes())
    (here.top / "notify.d" / name).chmod(0o755)
    # sendmail may be a real one here
    links = here.top / "tools"
    links.mkdir()
    for tool in ("cat", "env", "printf", "sed", "sh", "uname", "git", "python3"):
        (links / tool).symlink_to(f"/usr/bin/{tool}")
    return f"{here.top}/bin:{links}"


HOSTILE = "<b>Bcc: all@example.org</b>\n.\nBcc: all@example.org & more"


def test_the_mail(told: Installation) -> None:
    double(told, "sendmail")
    path = installed(told, "mail")
    job_id = told.submit(step("one", "true"), goal=HOSTILE, policy={"requires_approval": True})
    told.run("announce", MAILTO="ops@example.org", PATH=path)
    assert (told.top / "bin/sendmail.argv").read_text().split() == ["-t", "-oi"]
    head, _, body = (told.top / "bin/sendmail.stdin").read_text().partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines())
    assert headers["To"] == "ops@example.org"
    assert headers["Subject"] == f"agentorch: job {job_id} waits for you"
    assert set(headers) == {
        *("To", "Subject", "Auto-Submitted", "MIME-Version", "Content-Type"),
        "Content-Transfer-Encoding",
    }
    assert "Goal:     <b>Bcc: all@example.org</b> . Bcc: all@example.org & more\n" in body
    assert "    agentorch-approve --hash=" in body
    assert announced(told, job_id)["told"] == ["mail"]


def test_the_mail_without_sendmail(told: Installation) -> None:
    double(told, "mail")
    path = installed(told, "mail")
    job_id = unstarted(told)
    told.run("announce", PATH=path)
    argv = (told.top / "bin/mail.argv").read_text().splitlines()
    assert argv == ["-s", f"agentorch: job {job_id} waits for you", "--", "root"]
    assert f"agentorch-status {job_id}" in (told.top / "bin/mail.stdin").read_text()


def test_the_mail_that_nobody_takes_is_sent_again(told: Installation) -> None:
    path = installed(told, "mail")
    job_id = unstarted(told)
    told.run("announce", PATH=path)
    assert list(announced(told, job_id)["failed"]) == ["mail"]


def test_the_desktop(told: Installation) -> None:
    double(told, "notify-send")
    path = installed(told, "desktop")
    job_id = told.submit({**step("one", "true")}, goal=HOSTILE, policy={"requires_approval": True})
    told.run("announce", PATH=path)
    argv = (told.top / "bin/notify-send.argv").read_text()
    assert f"--\nJob {job_id} waits for you\nit is to be approved before it starts\n" in argv
    assert f"agentorch-status {job_id}" in argv
    # the goal is not shown, a reason may hold what an agent wrote
    environment = {**os.environ, "PATH": path, "AGENTORCH_JOB_ID": "x", "AGENTORCH_REASON": HOSTILE}
    subprocess.run([EXAMPLES / "desktop"], env=environment, stdin=subprocess.DEVNULL, check=True)
    argv = (told.top / "bin/notify-send.argv").read_text()
    assert "&lt;b&gt;Bcc: all@example.org&lt;/b&gt;" in argv
    assert "&amp; more" in argv


# ---- waiting that is over ---------------------------------------------------------------------


def waits_since(here: Installation, job_id: str, past: timedelta) -> None:
    """The job has waited for so long: its state says so, or its place in the queue."""
    moment = datetime.now(UTC) - past
    path = here.artifacts(job_id) / "state.json"
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished_at": stamp}))
    job = here.artifacts(job_id) / "job.json"
    job.write_text(json.dumps(json.loads(job.read_text()) | {"submitted_at": stamp}))
    for queued in here.state.glob(f"queue/*/5-*-{job_id}.json"):
        key = f"5-{moment.strftime('%Y%m%dT%H%M%S.%fZ')}-{job_id}.json"
        queued.rename(queued.with_name(key))


def decisions(here: Installation, job_id: str) -> list[dict[str, Any]]:
    path = here.artifacts(job_id) / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("start", [asking, unstarted])
@pytest.mark.parametrize(("then", "error"), [("reject", "rejected"), ("cancel", "cancelled")])
def test_a_job_that_waited_for_too_long_is_ended_and_that_is_on_record(
    told: Installation, start: Any, then: str, error: str
) -> None:
    waiting = {"waiting": {"then": then, "after_sec": 86400}}
    job_id = start(told, policy=waiting) if start is asking else start(told, **waiting)
    waits_since(told, job_id, timedelta(hours=23))
    told.run("reclaim")
    assert told.status(job_id)["queue_state"] == "awaiting_approval"
    waits_since(told, job_id, timedelta(days=3))
    said = told.run("reclaim").stderr
    assert f"{job_id}: {then} by agentorch: nobody decided for 3 days" in said
    found = told.status(job_id)
    assert (found["queue_state"], found["result"]["error"]["code"]) == ("failed", error)
    (line,) = decisions(told, job_id)
    assert (line["what"], line["who"]["name"]) == (then, "agentorch")
    assert line["comment"] == f"nobody decided for 3 days (the job says {then} after 86400 s)"
    assert told.run("reclaim").stderr == ""


def test_the_server_s_word_counts_where_the_job_says_nothing(told: Installation) -> None:
    silent, patient = unstarted(told), unstarted(told, waiting={"then": "wait"})
    for job_id in (silent, patient):
        waits_since(told, job_id, timedelta(days=400))
    told.run("reclaim")
    assert told.status(silent)["queue_state"] == "awaiting_approval"
    told.run("reclaim", WAITING_POLICY="reject", WAITING_MAX_SEC="3600")
    assert told.status(silent)["queue_state"] == "failed"
    assert told.status(patient)["queue_state"] == "awaiting_approval"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("WAITING_POLICY", "perhaps"), ("WAITING_MAX_SEC", "59"), ("WAITING_MAX_SEC", "a day")],
)
def test_a_wrong_policy_of_the_server_s(told: Installation, variable: str, value: str) -> None:
    said = told.run("reclaim", code=78, **{variable: value})
    assert said.stderr.startswith(f"agentorch-reclaim: {variable}: {value!r}: expected ")


def test_it_counts_from_when_the_job_began_to_wait(told: Installation) -> None:
    """Submitted long ago, it asked a human just now."""
    job_id = asking(told, policy={"waiting": {"then": "reject", "after_sec": 60}})
    waits_since(told, job_id, timedelta(days=3))
    path = told.artifacts(job_id) / "state.json"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished_at": now}))
    told.run("reclaim")
    assert told.status(job_id)["queue_state"] == "awaiting_approval"


@pytest.mark.parametrize("then", ["reject", "cancel"])
def test_a_human_who_decides_at_the_same_moment_wins_or_is_told(
    told: Installation, then: str
) -> None:
    jobs = [unstarted(told, waiting={"then": then, "after_sec": 60}) for _ in range(6)]
    for job_id in jobs:
        waits_since(told, job_id, timedelta(hours=1))
    clocks = [told.start("reclaim") for _ in range(2)]
    done = told.run("approve", *jobs, code=None)
    for clock in clocks:
        assert clock.wait() == 0
    approved = done.stdout.split()
    for job_id in jobs:
        (line,) = decisions(told, job_id)
        state = told.status(job_id)["queue_state"]
        if job_id in approved:
            assert (line["what"], state) == ("approve", "pending")
        else:
            assert (line["what"], state) == (then, "failed")
            assert (
                f"agentorch: can't approve job {job_id}".removeprefix("agentorch: ") in done.stderr
            )


@pytest.mark.parametrize("then", ["reject", "cancel"])
def test_what_was_read_before_a_human_decided_ends_nothing(told: Installation, then: str) -> None:
    """Decided on, and waiting again: the time of the first wait does not count."""
    job_id = asking(told, policy={"waiting": {"then": then, "after_sec": 60}})
    queue = Queue(load(told.environment).roots)
    (found,) = find_expired(queue, Waiting(Expiry.WAIT), datetime.now(UTC) + timedelta(hours=1))
    told.run("approve", job_id)
    told.drain()  # it fails again, and asks again
    refused = end(queue, found)
    assert refused is not None
    assert "it is not any more what was shown" in refused
    assert "approved it at" in refused
    assert told.status(job_id)["queue_state"] == "awaiting_approval"


def test_callbacks_go_out_as_for_any_end(told: Installation) -> None:
    waiting = {"waiting": {"then": "reject", "after_sec": 60}, "requires_approval": True}
    job_id = told.submit(step("one", "true"), callback_url="http://127.0.0.1:9/", policy=waiting)
    waits_since(told, job_id, timedelta(hours=1))
    told.run("reclaim")
    (entry,) = [json.loads(line) for line in told.run("notify", "--list").stdout.splitlines()]
    assert (entry["job_id"], entry["status"]) == (job_id, "failed")
