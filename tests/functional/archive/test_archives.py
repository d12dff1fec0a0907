"""Jobs in tars: what comes back is what went in, and what somebody altered is refused whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentorch.archive.import_ import bring
from agentorch.archive.layout import NAME, Entry, Manifest, manifest_of
from agentorch.core.errors import AgentorchError, Duplicate, Invalid
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.paths import Roots
from agentorch.storage.tar_stream import END, Header, Kind, TarReader, header_bytes, padding
from tests.support.installation import Installation, step

ID = "job-in-a-tar"
SCRIPT = """
mkdir -p deep/empty && echo one >deep/story && ln deep/story deep/again && ln -s deep/story in
ln -s /etc/passwd out && mkfifo pipe && truncate -s 2000000 sparse && chmod 751 deep/story
touch "$(printf 'caf\\351')" && mkdir -p closed && echo x >closed/x && chmod 0 closed
name=$(printf 'n%.0s' $(seq 200)) && mkdir -p $name/$name && echo y >$name/$name/$name
"""


def exported(here: Installation, *arguments: str) -> bytes:
    path = here.top / "job.tar"
    here.run("export", ID, "-o", str(path), *arguments)
    return path.read_bytes()


def tree(directory: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything below, but what no archive holds."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_symlink():
            content = os.readlink(path)
        if not path.name.startswith(".lock"):
            found[str(path.relative_to(directory))] = (stat.S_IFMT(status.st_mode), content)
    return found


def is_one_inode(here: Installation, state: State) -> bool:
    """The queue's invariant."""
    (queued,) = (here.state / "queue" / state).iterdir()
    job = here.artifacts(ID) / "job.json"
    return job.samefile(queued) and job.stat().st_nlink == 2


# ---- there and back ---------------------------------------------------------------------------


def test_an_ended_job_comes_back_as_it_was(here: Installation) -> None:
    here.submit(step("a", "echo x >file"), step("b", "exit 3"), job_id=ID)
    here.drain()
    before = tree(here.artifacts(ID))
    archive = exported(here)
    piped = subprocess.run(
        here.argv("export"),
        input=f"{ID}\n".encode(),
        capture_output=True,
        check=True,
        env=here.environment,
        timeout=60,
    )
    assert piped.stdout == archive
    here.run("delete", ID)
    assert here.run("import", str(here.top / "job.tar")).stdout == f"{ID}\n"
    assert tree(here.artifacts(ID)) == before
    assert here.run("verify", ID).stdout == f"{ID} intact\n"
    assert is_one_inode(here, State.FAILED)
    step_a = here.artifacts(ID) / "steps/a"
    assert (step_a / "result.json").samefile(step_a / "attempts/1/result.json")
    lying = 'orchestrator_queue_jobs{state="failed"} 1.0'
    assert lying in here.run("metrics", "--stdout").stdout
    again = here.run("import", str(here.top / "job.tar"), code=2)
    assert again.stderr == f"agentorch-import: job {ID!r} is there already\n"
    assert not list((here.state / "artifacts").glob(".import*"))


def test_a_job_goes_on_where_it_was_taken(here: Installation, tmp_path: Path) -> None:
    """With its workspace, elsewhere, where its source is no more."""
    fails_once = '[ -e deep/story ] && echo two >>deep/story && [ -e "$HOME/fine" ]'
    here.submit(step("a", SCRIPT), step("b", fails_once, on_failure="ask_human"), job_id=ID)
    here.drain()
    assert here.status(ID)["queue_state"] == "awaiting_approval"
    archive = exported(here, "--workspace")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = tar.getnames()
    assert names[0] == NAME
    assert not [name for name in names if "/home" in name or name.endswith(("out", "pipe"))]
    left = manifest_of_(archive)["left_out"]
    assert {one["path"].rpartition("/")[2]: one["why"] for one in left} == {
        "out": "a link out of the work tree",
        "pipe": "no file, directory or link",
    }

    there = Installation(tmp_path / "there")
    there.top.mkdir()
    there.repository = there.top
    assert there.run("import", str(here.top / "job.tar"), "--json").stdout == (
        f'{{"job_id": "{ID}", "state": "held"}}\n'
    )
    assert is_one_inode(there, State.HELD)
    row = json.loads(there.run("ls", "--json").stdout)
    assert (row["state"], row["reason"]) == ("held", "imported")
    work = there.work(ID)
    assert (work / "in").read_text() == "one\ntwo\n"
    assert (work / "deep/again").samefile(work / "deep/story")
    assert stat.S_IMODE((work / "deep/story").stat().st_mode) == 0o751
    assert (work / "sparse").stat().st_blocks == 0
    assert (work / "sparse").stat().st_size == 2000000
    assert (work / "closed/x").read_text() == "x\n"
    assert os.path.exists(os.fsencode(work) + b"/caf\xe9")


def manifest_of_(archive: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(NAME)
        assert file is not None
        document: dict[str, Any] = json.load(file)
    return document


def test_an_imported_job_runs_when_it_is_released(here: Installation) -> None:
    script = 'echo two >>story; cat story; [ -e "$HOME/fine" ] || { touch "$HOME/fine"; exit 1; }'
    here.submit(step("a", "echo one >story; touch out.o"), step("b", script), job_id=ID)
    here.drain()
    exported(here, "--workspace")
    here.run("delete", ID)
    here.run("import", str(here.top / "job.tar"))
    for _ in range(2):  # its HOME did not come with it
        here.run("retry", ID)
        here.drain()
    assert here.status(ID)["queue_state"] == "done"
    assert (here.artifacts(ID) / "steps/b/raw_stdout.txt").read_text() == "one\ntwo\n"
    assert not (here.artifacts(ID) / "steps/a/attempts/2").exists()


def test_a_waiting_job_is_held_where_it_was_brought(here: Installation) -> None:
    here.submit(step("a", "true"), job_id=ID, priority=2)
    exported(here)
    here.run("cancel", ID)
    here.run("delete", ID)
    here.run("import", str(here.top / "job.tar"))
    here.drain()
    assert here.status(ID)["queue_state"] == "held"
    here.run("release", ID)
    here.drain()
    assert here.status(ID)["queue_state"] == "done"


def test_nothing_is_left_of_an_output_that_failed(here: Installation) -> None:
    here.submit(step("a", "true"), job_id=ID)
    before = sorted(here.top.iterdir())
    no = here.run("export", ID, "-o", str(here.top / "no/x.tar"), code=2)
    assert no.stderr.endswith("x.tar: No such file or directory\n")
    assert len(no.stderr.splitlines()) == 1
    assert here.run("export", ID, ID, code=2).stdout == ""
    assert "No such file" in here.run("import", "nowhere.tar", code=2).stderr
    assert sorted(here.top.iterdir()) == before


@pytest.mark.parametrize("command", ["export", "report"])
def test_what_is_no_file_is_written_to_and_not_replaced(here: Installation, command: str) -> None:
    here.submit(step("a", "true"), job_id=ID)
    fifo, link, target = here.top / "fifo", here.top / "link", here.top / "target"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        here.run(command, ID, "-o", str(fifo))
        assert os.read(reader, 5) in (b"EXPOR", b"<!DOC")
    finally:
        os.close(reader)
    assert fifo.is_fifo()
    link.symlink_to("/proc/self/fd/1")
    assert here.run(command, ID, "-o", str(link)).stdout[:5] in ("EXPOR", "<!DOC")
    link.unlink()
    link.symlink_to(target)
    here.run(command, ID, "-o", str(link))
    assert link.is_symlink()
    assert target.stat().st_size > 0


# ---- altered ----------------------------------------------------------------------------------

Alter = Callable[[Manifest, dict[str, bytes]], Manifest]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive with everything that one can have."""
    here = Installation(tmp_path_factory.mktemp("sound"))
    here.start_repository()
    here.submit(step("a", SCRIPT), step("b", "exit 3"), job_id=ID)
    here.drain()
    return exported(here, "--workspace")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    roots = Roots(
        tmp_path / "queue", tmp_path / "artifacts", tmp_path / "workspaces", tmp_path / "state.db"
    )
    queue = Queue(roots)
    queue.prepare()
    return queue


def brought(queue: Queue, archive: bytes) -> State:
    return bring(queue, io.BytesIO(archive), lambda _: [], datetime.now(UTC)).state


def leftovers(queue: Queue) -> list[str]:
    roots = (queue.roots.queue_root, queue.roots.artifacts_root, queue.roots.workspaces_root)
    return [
        str(path)
        for root in roots
        for path in root.rglob("*")
        if not (root == queue.roots.queue_root and path.is_dir())
    ]


def pieces(archive: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of an archive, and the content of its files."""
    tape = TarReader(io.BytesIO(archive))
    tape.next()
    manifest = manifest_of(tape.whole(1 << 20))
    contents = {}
    while (header := tape.next()) is not None:
        contents[header.path] = tape.whole(1 << 30)
    return manifest, contents


def written(manifest: Manifest, contents: dict[str, bytes]) -> bytes:
    """An archive whose hashes are right, whatever else it is."""
    entries = []
    for entry in manifest.entries:
        content, header = contents.get(entry.header.path, b""), entry.header
        if header.kind is Kind.FILE:
            sha256 = hashlib.sha256(content).hexdigest()
            entries.append(Entry(replace(header, size=len(content)), sha256))
        else:
            entries.append(entry)
    encoded = replace(manifest, entries=entries).encode()
    blocks = [header_bytes(Header(NAME, Kind.FILE, 0o640, len(encoded))), encoded]
    blocks.append(padding(len(encoded)))
    for entry in entries:
        content = contents.get(entry.header.path, b"") if entry.header.kind is Kind.FILE else b""
        blocks += [header_bytes(entry.header), content, padding(len(content))]
    return b"".join([*blocks, END])


def test_the_sound_one_is_taken(queue: Queue, sound: bytes) -> None:
    assert written(*pieces(sound)) == sound or manifest_of_(sound)["left_out"]
    assert brought(queue, written(*pieces(sound))) is State.FAILED
    with pytest.raises(Duplicate):
        brought(queue, sound)


def with_entry(kind: Kind, path: str, target: str = "", mode: int = 0o644) -> Alter:
    def alter(manifest: Manifest, contents: dict[str, bytes]) -> Manifest:
        sha256 = hashlib.sha256(b"").hexdigest() if kind is Kind.FILE else ""
        new = Entry(Header(path, kind, mode, 0, target), sha256)
        return replace(manifest, entries=[*manifest.entries, new])

    return alter


def with_document(path: str, change: Callable[[Any], Any]) -> Alter:
    def alter(manifest: Manifest, contents: dict[str, bytes]) -> Manifest:
        document = json.loads(contents[path])
        contents[path] = json.dumps(change(document)).encode()
        return manifest

    return alter


def without(path: str) -> Alter:
    def alter(manifest: Manifest, contents: dict[str, bytes]) -> Manifest:
        entries = [entry for entry in manifest.entries if entry.header.path != path]
        return replace(manifest, entries=entries)

    return alter


HISTORY = "workspace/history.git"
BAD: dict[str, tuple[Alter, str]] = {
    "absolute": (with_entry(Kind.FILE, "/etc/cron.d/x"), "no name below"),
    "up": (with_entry(Kind.FILE, "artifacts/../../x"), "no name below"),
    "dot": (with_entry(Kind.FILE, "artifacts/./x"), "no name below"),
    "empty part": (with_entry(Kind.FILE, "artifacts//x"), "no name below"),
    "NUL": (with_entry(Kind.FILE, "artifacts/a\0b"), "no name below"),
    "long": (with_entry(Kind.FILE, "artifacts/" + "x" * 256), "no name below"),
    "elsewhere": (with_entry(Kind.DIRECTORY, "queue"), "no such file"),
    "a file for a directory": (with_entry(Kind.FILE, "workspace.json"), "no such file"),
    "lock": (with_entry(Kind.FILE, "artifacts/.lock"), "no such file"),
    "outbox": (with_entry(Kind.FILE, "artifacts/callback.json"), "no such file"),
    "home": (with_entry(Kind.DIRECTORY, "workspace/home"), "no such file"),
    "twice": (with_entry(Kind.FILE, "artifacts/job.json"), "there twice"),
    "no parent": (with_entry(Kind.FILE, "artifacts/none/x"), "not there before"),
    "below a file": (with_entry(Kind.FILE, "artifacts/job.json/x"), "not there before"),
    "below a link": (with_entry(Kind.FILE, "workspace/work/in/x"), "not there before"),
    "setuid": (with_entry(Kind.FILE, "workspace/work/x", mode=0o4755), "EXPORT.json is none"),
    "link of ours": (with_entry(Kind.SYMLINK, "artifacts/x", "job.json"), "no such file"),
    "link out": (with_entry(Kind.SYMLINK, "workspace/work/x", "/etc"), "link out"),
    "link up": (with_entry(Kind.SYMLINK, "workspace/work/x", "../history.git"), "link out"),
    "hard link out": (with_entry(Kind.LINK, "workspace/work/x", "artifacts/job.json"), "no file"),
    "hard link up": (with_entry(Kind.LINK, "workspace/work/x", "/etc/passwd"), "no file"),
    "hard link to a link": (
        with_entry(Kind.LINK, "workspace/work/x", "workspace/work/in"),
        "no file",
    ),
    "git configuration": (with_entry(Kind.FILE, f"{HISTORY}/config"), "no such file"),
    "git hooks": (with_entry(Kind.DIRECTORY, f"{HISTORY}/hooks"), "no such file"),
    "git alternates": (with_entry(Kind.DIRECTORY, f"{HISTORY}/objects/info"), "no such file"),
    "git attributes": (with_entry(Kind.DIRECTORY, f"{HISTORY}/info"), "no such file"),
    "no job": (without("artifacts/job.json"), "no job.json"),
    "no state": (without("artifacts/state.json"), "state.json: it is missing"),
    "other state": (lambda m, _: replace(m, state=State.DONE), "and lay in done/"),
    "other id": (lambda m, _: replace(m, job_id="job-other"), "it is job 'job-in-a-tar'"),
    "id that goes up": (lambda m, _: replace(m, job_id="../../up"), "no job's id"),
    "job's field": (with_document("artifacts/job.json", lambda d: {**d, "goal": 1}), ".goal"),
    "job's key": (with_document("artifacts/job.json", lambda d: {**d, "x": 1}), "'x' is unknown"),
    "no policy": (
        with_document(
            "artifacts/job.json", lambda d: {k: v for k, v in d.items() if k != "policy"}
        ),
        "'policy' is missing",
    ),
    "year 1": (
        with_document(
            "artifacts/job.json", lambda d: {**d, "submitted_at": "0001-01-01T00:00:00Z"}
        ),
        "no name of a queue file",
    ),
    "state is a list": (with_document("artifacts/state.json", lambda _: []), "not of ours"),
    "other step": (
        with_document("artifacts/state.json", lambda d: {**d, "current_step": "../x"}),
        "of another job",
    ),
    "count": (
        with_document(
            "artifacts/state.json",
            lambda d: {**d, "steps": {k: {**v, "attempt": "../1"} for k, v in d["steps"].items()}},
        ),
        "a count is none",
    ),
    "result": (with_document("artifacts/result.json", lambda d: {**d, "status": "x"}), ".status"),
    "null for a job": (with_document("artifacts/job.json", lambda _: None), "job.json: it is null"),
    "step's result": (
        with_document("artifacts/steps/a/attempts/1/result.json", lambda _: {}),
        "is missing",
    ),
    "base": (
        with_document("artifacts/base.json", lambda _: {"commit": "--upload-pack=x"}),
        "its commit is none",
    ),
    "tree": (
        with_document(
            "workspace/workspace.json", lambda d: {**d, "last": {"full": "-x", "visible": "-x"}}
        ),
        "an object of git's is none",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_nobody_exported_is_refused(queue: Queue, sound: bytes, name: str) -> None:
    alter, said = BAD[name]
    manifest, contents = pieces(sound)
    manifest = alter(manifest, contents)
    with pytest.raises(Invalid) as refused:
        brought(queue, written(manifest, contents))
    assert said in str(refused.value)
    assert leftovers(queue) == []


def test_what_the_server_does_not_take_is_refused(queue: Queue, sound: bytes) -> None:
    """A job that would run is judged as at any other door; one that ended is only kept."""
    manifest, contents = pieces(sound)
    waiting = written(replace(manifest, state=State.AWAITING_APPROVAL), contents)

    def problems(_: object) -> list[str]:
        return ["its agent is unknown here"]

    with pytest.raises(Invalid, match=r"job\.json: its agent is unknown here"):
        bring(queue, io.BytesIO(waiting), problems, datetime.now(UTC))
    assert leftovers(queue) == []
    assert bring(queue, io.BytesIO(sound), problems, datetime.now(UTC)).state is State.FAILED


def test_a_byte_of_content_that_was_altered(queue: Queue, sound: bytes) -> None:
    at = sound.index(b'"a goal"')
    altered = sound[:at] + b"X" + sound[at + 1 :]
    with pytest.raises(Invalid, match="it was altered: its SHA-256 is another"):
        brought(queue, altered)
    assert leftovers(queue) == []


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_is_told_in_words(queue: Queue, sound: bytes, seed: int) -> None:
    """Wherever bytes are changed, lost or added before the end: refused, and nothing is left."""
    chance = random.Random(seed)
    at = chance.randrange(len(sound) - len(END) - 1)
    if seed % 3 == 0:
        at -= at % 512  # what a header says
    cut = sound[:at] + bytes([sound[at] ^ chance.randrange(1, 256)]) + sound[at + 1 :]
    damaged = [cut, sound[:at], sound[:at] + sound[at + chance.randrange(1, 600) :]][seed % 3 - 1]
    try:
        brought(queue, damaged)
    except AgentorchError:
        assert leftovers(queue) == []
    else:  # only what fills a block up to its end means nothing
        assert len(damaged) == len(sound)
        assert sound[at] == 0


def test_half_a_character_is_no_name(sound: bytes) -> None:
    manifest, _ = pieces(sound)
    text = manifest.encode().replace(b"artifacts/report.md", b"artifacts/\\ud800")
    with pytest.raises(Invalid, match="no name below"):
        manifest_of(text)


def test_others_tars_are_refused(queue: Queue) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x"))
    for archive in (made.getvalue(), b"", b"\0" * 1024, b"x" * 2048, os.urandom(4096)):
        with pytest.raises(Invalid):
            brought(queue, archive)
    assert leftovers(queue) == []


DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"S", b"g", b"L")


@pytest.mark.parametrize("kind", DEVICES)
def test_devices_and_extensions_are_refused(queue: Queue, sound: bytes, kind: bytes) -> None:
    manifest, contents = pieces(sound)
    info = tarfile.TarInfo("artifacts/zzz")
    info.type = kind
    whole = written(manifest, contents)
    archive = whole.removesuffix(END) + info.tobuf(tarfile.USTAR_FORMAT) + END
    with pytest.raises(Invalid, match="wrote no such thing"):
        brought(queue, archive)
    assert leftovers(queue) == []


def test_a_header_that_never_ends_is_refused(queue: Queue) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40

    class Endless:
        """What would fill the memory."""

        begun = False

        def read(self, size: int, /) -> bytes:
            head = b"" if self.begun else info.tobuf(tarfile.GNU_FORMAT)
            self.begun = True
            return head or b"x" * size

    with pytest.raises(Invalid, match="too large"):
        bring(queue, Endless(), lambda _: [], datetime.now(UTC))


def test_an_id_that_somebody_takes_meanwhile(queue: Queue, sound: bytes) -> None:
    """The last rename decides."""
    whole = io.BytesIO(sound)

    class Slow:
        """A pipe at whose end another job of this id is there."""

        def read(self, size: int, /) -> bytes:
            piece = whole.read(size)
            if whole.tell() == len(sound):
                directory = queue.roots.artifacts(ID).directory
                directory.mkdir(exist_ok=True)
                (directory / "job.json").write_text("{}")
            return piece

    with pytest.raises(Duplicate):
        bring(queue, Slow(), lambda _: [], datetime.now(UTC))
    assert leftovers(queue) == [
        str(queue.roots.artifacts(ID).directory),
        str(queue.roots.artifacts(ID).job),
    ]


def test_sockets_and_what_has_no_name_in_a_workspace(here: Installation) -> None:
    here.submit(step("a", "true"), job_id=ID)
    here.drain()
    work = here.work(ID)
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(work):
        listening.bind("s")  # its whole path may be longer than an address
    with (work / "huge").open("wb") as file:
        file.truncate(1 << 40)
    done = here.run("export", ID, "--workspace", "-o", str(here.top / "x.tar"))
    assert "left out: workspace/work/s: no file, directory or link" in done.stderr
    assert "left out: workspace/work/huge: larger than 1073741824 bytes" in done.stderr
    assert (here.top / "x.tar").stat().st_size < 1 << 20
