"""The record of a run: what was altered, is missing or was added is named; signatures hold."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentorch.artifacts import manifest as runrecord
from agentorch.artifacts.manifest import Finding, Word, compare
from tests.support.installation import Installation, step

WRITES = "echo more >> README; echo said"


def ended(
    here: Installation, script: str = WRITES, *, on_failure: str = "stop", **variables: str
) -> str:
    one = step("one", script, on_failure=on_failure)
    job_id = here.submit(one, step("two", "true"), workdir=str(here.repository))
    here.drain(**variables)
    return job_id


def verified(here: Installation, job_id: str, **variables: str) -> tuple[int, dict[str, Any]]:
    done = here.run("verify", "--json", job_id, code=None, **variables)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def manifest(here: Installation, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here.artifacts(job_id) / "manifest.json").read_bytes())
    return found


# ---- what it holds ----------------------------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_a_record_names_all_that_a_job_consisted_of(here: Installation) -> None:
    job_id = ended(here)
    found = manifest(here, job_id)
    there = {
        str(path.relative_to(here.artifacts(job_id)))
        for path in here.artifacts(job_id).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert set(found["files"]) == there - {"manifest.json"}
    assert {"job.json", "state.json", "steps/one/attempts/1/prompt.md"} <= set(found["files"])
    tree = here.git("rev-parse", "HEAD^{tree}").strip()
    assert found["base"]["tree"] == tree
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"


@pytest.mark.needs("git", "bwrap")
def test_a_record_says_which_programs_ran(here: Installation) -> None:
    job_id = ended(here)
    shell = Path("/bin/sh").resolve()
    digest = subprocess.run(["sha256sum", shell], capture_output=True, text=True, check=True)
    for one in manifest(here, job_id)["agents"]:
        assert one["program"]["path"] == str(shell)
        assert one["program"]["sha256"] == digest.stdout.split()[0]
        assert one["program"]["bytes"] == shell.stat().st_size
    # its hash was kept, and another file in its place would be read anew
    kept = json.loads((here.state / "programs.json").read_bytes())
    assert kept[str(shell)]["program"][1] == shell.stat().st_ino


@pytest.mark.needs("git", "bwrap")
def test_a_program_that_was_replaced_has_another_hash(here: Installation) -> None:
    programs = here.top / "programs"
    programs.mkdir()
    (programs / "sh").write_bytes(Path("/bin/sh").read_bytes())
    (programs / "sh").chmod(0o755)
    path = f"{programs}:{here.environment['PATH']}"
    first = manifest(here, ended(here, PATH=path))["agents"][0]["program"]
    with (programs / "sh").open("ab") as file:
        file.write(b"\n")
    second = manifest(here, ended(here, PATH=path))["agents"][0]["program"]
    assert first["path"] == second["path"] == str(programs / "sh")
    assert second["bytes"] == first["bytes"] + 1
    assert second["sha256"] != first["sha256"]


# ---- what was changed -------------------------------------------------------------------------


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def link_elsewhere(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.with_name(".kept").write_bytes(content)
    path.symlink_to(".kept")


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize(
    ("path", "change", "word"),
    [
        ("job.json", append, "altered"),
        ("state.json", append, "altered"),
        ("state.json", Path.unlink, "missing"),
        ("patch.diff", append, "altered"),
        ("steps/one/attempts/1/prompt.md", append, "altered"),
        ("steps/two/attempts/1/logs.txt", Path.unlink, "missing"),
        ("result.json", Path.unlink, "missing"),
        ("steps/one/attempts/1/report.md", link_elsewhere, "altered"),
        ("steps/one/more.txt", Path.touch, "added"),
    ],
)
def test_a_change_is_named(
    here: Installation, path: str, change: Callable[[Path], object], word: str
) -> None:
    job_id = ended(here)
    change(here.artifacts(job_id) / path)
    code, found = verified(here, job_id)
    assert code == 1
    assert not found["intact"]
    assert {"what": word, "path": path, "reason": ""} in found["findings"]
    shown = here.run("verify", job_id, code=1).stdout.splitlines()
    assert f"{job_id} {word} {path}" in shown


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[" * 100_000, b'{"schema_version": "1.0", "job_id": "x", "files": {}}'],
)
def test_a_record_that_is_none_is_a_finding(here: Installation, content: bytes) -> None:
    job_id = ended(here)
    (here.artifacts(job_id) / "manifest.json").write_bytes(content)
    code, found = verified(here, job_id)
    assert code == 1
    assert [one["path"] for one in found["findings"]] == ["manifest.json"]


@pytest.mark.needs("git", "bwrap")
def test_the_record_of_another_job_is_a_finding(here: Installation) -> None:
    first, second = ended(here), ended(here)
    (here.artifacts(second) / "manifest.json").write_bytes(
        (here.artifacts(first) / "manifest.json").read_bytes()
    )
    assert verified(here, second)[1]["findings"][0]["reason"] == "it is no record of this job"


@pytest.mark.needs("git", "bwrap")
def test_markers_come_and_go_by_right(here: Installation) -> None:
    """But a file of such a name elsewhere is one like any other."""
    job_id = ended(here)
    for name in ("keep", "announced", "hold", "callback.json", "cancel"):
        (here.artifacts(job_id) / name).write_text("{}")
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"
    (here.artifacts(job_id) / "steps/one/keep").touch()
    assert here.run("verify", job_id, code=1).stdout == f"{job_id} added steps/one/keep\n"


@pytest.mark.needs("git", "bwrap")
def test_an_edited_job_and_an_allowance_are_on_record(here: Installation) -> None:
    job_id = here.submit(step("one", WRITES))
    edited = here.artifacts(job_id) / "job.edited.json"
    edited.write_bytes((here.artifacts(job_id) / "job.json").read_bytes())
    here.drain()
    allowance = here.artifacts(job_id) / "steps/one/attempts/1/allowance.json"
    assert "job.edited.json" in manifest(here, job_id)["files"]
    append(edited)
    allowance.write_text("{}")
    found = here.run("verify", job_id, code=1).stdout
    assert f"{job_id} altered job.edited.json\n" in found
    assert f"{job_id} " in found.replace("altered job.edited.json", "")
    assert "steps/one/attempts/1/allowance.json" in found


def test_what_is_compared() -> None:
    recorded = {"a": {"bytes": 1}, "b": {"bytes": 1}, "c": {"bytes": 1}}
    found = {"a": {"bytes": 1}, "c": {"bytes": 2}, "d": {"bytes": 1}}
    assert list(compare(recorded, found)) == [
        Finding(Word.MISSING, "b"),
        Finding(Word.ALTERED, "c"),
        Finding(Word.ADDED, "d"),
    ]


def test_the_same_run_has_the_same_bytes() -> None:
    one = runrecord.canonical({"b": 1, "a": {"d": "ü", "c": 2}})
    assert one == runrecord.canonical({"a": {"c": 2, "d": "ü"}, "b": 1})


# ---- decisions, and ends again ----------------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_what_is_decided_after_the_end_alters_nothing(here: Installation) -> None:
    job_id = ended(here, "exit 1")
    decisions = here.artifacts(job_id) / "decisions.jsonl"
    assert not decisions.exists()
    here.run("retry", job_id)
    assert decisions.exists()
    shown = here.run("verify", job_id, code=1)
    assert shown.stderr.endswith("has not ended: its record is written when it does\n")
    here.drain()
    assert manifest(here, job_id)["ends"] == 2
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"
    append(decisions)
    assert verified(here, job_id)[0] == 0
    line = decisions.read_bytes()
    decisions.write_bytes(line.replace(b'"retry"', b'"other"'))
    code, found = verified(here, job_id)
    assert code == 1
    assert found["findings"][0]["path"] == "decisions.jsonl"
    assert found["findings"][0]["what"] == "altered"
    decisions.unlink()
    assert verified(here, job_id)[1]["findings"][0]["what"] == "missing"


@pytest.mark.needs("git", "bwrap")
def test_what_is_edited_after_the_record_alters_nothing(here: Installation) -> None:
    job_id = ended(here, script="exit 1", on_failure="ask_human")
    edited = here.artifacts(job_id) / "job.edited.json"

    def is_intact() -> bool:
        return here.run("verify", job_id, code=None).stdout == f"{job_id} intact\n"

    first = edit(here, job_id, "2.5")
    assert is_intact()
    here.run("priority", "3", job_id)
    assert is_intact()
    last = edited.read_bytes()
    # a line is durable before its act: a decider may have died between the two
    written(edited, first)
    assert is_intact()
    for other in (last.replace(b"2.5", b"9.5"), b"{}"):
        written(edited, other)
        assert here.run("verify", job_id, code=1).stdout == f"{job_id} altered job.edited.json\n"
    edited.unlink()
    assert here.run("verify", job_id, code=1).stdout == f"{job_id} missing job.edited.json\n"
    written(edited, last)
    assert is_intact()


def edit(here: Installation, job_id: str, cost_usd: str) -> bytes:
    """The job's document after an edit of what it may cost."""
    steps = json.loads((here.artifacts(job_id) / "job.json").read_bytes())["steps"]
    part = {"steps": steps, "policy": {"max_cost_usd": float(cost_usd)}}
    here.run("edit", job_id, given=json.dumps(part))
    return (here.artifacts(job_id) / "job.edited.json").read_bytes()


def written(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.needs("git", "bwrap")
def test_an_edit_that_nobody_decided_is_named(here: Installation) -> None:
    job_id = ended(here)
    (here.artifacts(job_id) / "job.edited.json").write_bytes(b"{}")
    assert here.run("verify", job_id, code=1).stdout == f"{job_id} added job.edited.json\n"


@pytest.mark.needs("git", "bwrap")
def test_a_job_that_was_cancelled_before_its_start_has_a_record(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    assert here.run("verify", job_id, code=1).stdout == ""
    here.run("cancel", job_id)
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"
    assert manifest(here, job_id)["base"] is None


@pytest.mark.needs("git", "bwrap")
def test_a_job_that_asks_a_human_has_a_record(here: Installation) -> None:
    job_id = here.submit(step("one", "exit 1", on_failure="ask_human"), step("two", "true"))
    here.drain()
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"
    here.run("approve", job_id)
    assert here.run("verify", job_id, code=1).stdout == ""


@pytest.mark.needs("git", "bwrap")
def test_ids_come_from_standard_input(here: Installation) -> None:
    first, second = ended(here), ended(here)
    append(here.artifacts(second) / "report.md")
    done = here.run("verify", given=f"{first}\n{second}\n", code=1)
    assert done.stdout == f"{first} intact\n{second} altered report.md\n"


# ---- signatures -------------------------------------------------------------------------------


def key(here: Installation, name: str, passphrase: str = "") -> Path:
    path = here.top / name
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


def allowed(here: Installation, *keys: Path) -> str:
    path = here.top / "allowed"
    lines = [f"{one.name}@example.org {one.with_suffix('.pub').read_text()}" for one in keys]
    path.write_text("".join(lines))
    return str(path)


@pytest.mark.needs("git", "bwrap", "ssh-keygen")
def test_a_record_is_signed_and_its_signer_named(here: Installation) -> None:
    ours, others = key(here, "ours"), key(here, "others")
    job_id = ended(here, AGENTORCH_SIGNING_KEY=str(ours))
    code, found = verified(here, job_id, AGENTORCH_ALLOWED_SIGNERS=allowed(here, ours, others))
    assert code == 0
    assert found["signer"].startswith("ours@example.org (ED25519 key SHA256:")
    shown = here.run("verify", job_id).stdout
    assert shown.startswith(f"{job_id} intact, signed by ED25519 key SHA256:")
    stranger = allowed(here, others)
    code, found = verified(here, job_id, AGENTORCH_ALLOWED_SIGNERS=stranger)
    assert (code, found["signer"]) == (1, None)
    assert found["findings"][0]["what"] == "unsigned"


@pytest.mark.needs("git", "bwrap", "ssh-keygen")
def test_a_record_that_was_written_anew_has_no_signature_that_fits(here: Installation) -> None:
    job_id = ended(here, AGENTORCH_SIGNING_KEY=str(key(here, "ours")))
    path = here.artifacts(job_id) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"success"', b'"failed"'))
    code, found = verified(here, job_id)
    assert code == 1
    assert found["findings"][0]["path"] == "manifest.json"
    assert found["findings"][0]["what"] == "unsigned"


@pytest.mark.needs("git", "bwrap", "ssh-keygen")
def test_an_unsigned_record_holds_only_where_nobody_asks_for_a_signature(
    here: Installation,
) -> None:
    job_id = ended(here)
    assert verified(here, job_id)[0] == 0
    code, found = verified(here, job_id, AGENTORCH_ALLOWED_SIGNERS=allowed(here, key(here, "a")))
    assert code == 1
    assert found["findings"][0]["reason"] == "nobody signed it"


@pytest.mark.needs("git", "bwrap", "ssh-keygen")
@pytest.mark.parametrize("passphrase", ["locked", None])
def test_a_key_that_can_not_be_used_stops_no_job(
    here: Installation, passphrase: str | None
) -> None:
    path = here.top / "absent" if passphrase is None else key(here, "ours", passphrase)
    job_id = ended(here, AGENTORCH_SIGNING_KEY=str(path))
    assert here.status(job_id)["status"] == "success"
    assert not (here.artifacts(job_id) / "manifest.json.sig").exists()
    shown = here.run("doctor", code=None, AGENTORCH_SIGNING_KEY=str(path)).stdout
    assert "problem  signing: AGENTORCH_SIGNING_KEY: " in shown


@pytest.mark.needs("git", "bwrap", "ssh-keygen")
def test_a_signature_of_an_earlier_end_does_not_stay(here: Installation) -> None:
    job_id = ended(here, "exit 1", AGENTORCH_SIGNING_KEY=str(key(here, "ours")))
    assert (here.artifacts(job_id) / "manifest.json.sig").exists()
    here.run("retry", job_id)
    here.drain()
    assert not (here.artifacts(job_id) / "manifest.json.sig").exists()
    assert verified(here, job_id)[0] == 0
