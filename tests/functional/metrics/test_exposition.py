"""The text that Prometheus reads: of a real queue, and by its own tools."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentorch.config.settings import Settings, load
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.slots import hold
from agentorch.ledger import ledger, metric_families
from agentorch.ledger.ledger import Counts
from agentorch.ledger.metric_families import FAMILIES, Kind
from agentorch.metrics import exposition, gauges
from agentorch.metrics.samples import counted_family
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support import prometheus
from tests.support.ends import attempt, job, roots_in, with_package

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
BIN = Path(__file__).parents[3] / "bin"
# What promtool says of a name that the contract gives.
OURS_TO_BEAR = "orchestrator_job_duration_ms metric names should not contain abbreviated units"


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    yield roots_in(tmp_path / "state")
    sqlite.KEPT.close()


def settings_of(roots: Roots) -> Settings:
    return replace(load({"AGENTORCH_ENV_FILE": "/dev/null"}), roots=roots, slots=4)


def text_of(roots: Roots) -> str:
    return exposition.read_metrics(settings_of(roots), NOW).text.decode()


def samples(text: str) -> dict[str, float]:
    """Every sample, by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def fill(roots: Roots) -> Queue:
    """A queue with something of everything."""
    queue = Queue(roots)
    queue.prepare()
    told = {"tokens_in": 7, "cost_usd": 0.25, "memory_peak_bytes": 1 << 27, "io_read_bytes": 5}
    ledger.count_attempt(roots, attempt(1, model='m"', metrics=told))
    ledger.count_attempt(roots, attempt(2, duration_s=7000.0, outcome="oom", status="failed"))
    ledger.count_job(roots, job())
    put(queue, State.PENDING, 5, timedelta(seconds=90))
    put(queue, State.PENDING, 1, timedelta(seconds=10))
    put(queue, State.AWAITING_APPROVAL, 5, timedelta(days=2))
    return queue


def put(queue: Queue, state: State, priority: int, age: timedelta) -> None:
    key = Key(priority, NOW - age, f"job-{priority}-{age.total_seconds():g}")
    queue.paths.file(state, key).touch()


# ---- the text ---------------------------------------------------------------------------------


def test_what_a_queue_tells(roots: Roots) -> None:
    queue = fill(roots)
    with hold(queue, "1", wait=False):
        found = samples(text_of(roots))
    told = {
        "orchestrator_queue_jobs{state=pending}": 2,
        "orchestrator_queue_jobs{state=running}": 0,
        "orchestrator_queue_jobs{state=awaiting_approval}": 1,
        "orchestrator_queue_jobs{state=done}": 1,
        "orchestrator_queue_jobs{state=failed}": 0,
        "orchestrator_jobs_total{status=success}": 1,
        "orchestrator_jobs_total{status=timeout}": 0,
        "orchestrator_steps_total{status=failed}": 1,
        "orchestrator_job_duration_ms_sum{}": 12500,
        "orchestrator_job_duration_ms_count{}": 1,
        "agentorch_attempts_total{agent=codex,outcome=oom,status=failed}": 1,
        "agentorch_attempt_duration_seconds_bucket{agent=codex,le=1}": 0,
        "agentorch_attempt_duration_seconds_bucket{agent=codex,le=5}": 1,
        "agentorch_attempt_duration_seconds_bucket{agent=codex,le=3600}": 1,
        "agentorch_attempt_duration_seconds_bucket{agent=codex,le=+Inf}": 2,
        "agentorch_attempt_duration_seconds_count{agent=codex}": 2,
        "agentorch_attempt_duration_seconds_sum{agent=codex}": 7003,
        'agentorch_tokens_in_total{agent=codex,model=m"}': 7,
        "agentorch_memory_peak_bytes_bucket{agent=codex,le=1.34217728e+08}": 1,
        "agentorch_memory_peak_bytes_bucket{agent=codex,le=6.7108864e+07}": 0,
        "agentorch_io_bytes_total{agent=codex,direction=read}": 5,
        "agentorch_queue_oldest_seconds{state=pending}": 90,
        "agentorch_queue_oldest_seconds{state=awaiting_approval}": 172800,
        "agentorch_queue_oldest_seconds{state=running}": 0,
        "agentorch_slots{}": 4,
        "agentorch_slots_live{}": 1,
        "agentorch_ledger_readable{}": 1,
    }
    assert {name: found.get(name) for name in told} == told


def test_nothing_is_made_and_all_is_told_where_there_was_never_a_queue(roots: Roots) -> None:
    found = samples(text_of(roots))
    assert found["orchestrator_jobs_total{status=success}"] == 0
    assert found["orchestrator_queue_jobs{state=done}"] == 0
    assert found["agentorch_job_wait_seconds_bucket{le=+Inf}"] == 0
    assert not roots.queue_root.parent.exists()


def test_every_family_has_its_line_of_help_and_its_type(roots: Roots) -> None:
    text = text_of(roots)
    for family in FAMILIES:
        assert f"# HELP {family.name} {family.words}\n# TYPE {family.name} {family.kind}\n" in text


def test_a_histogram_tells_the_same_with_other_bounds() -> None:
    """What was counted with bounds that are no more is in the next one above."""
    counts: Counts = {("h", ()): {"sum": 9.0, "0.5": 1.0, "2.0": 2.0, "3.0": 4.0, "+Inf": 8.0}}
    family = metric_families.Family("h", Kind.HISTOGRAM, "", (), (1, 3))
    found = [sample.value for sample in counted_family(family, counts).samples]
    assert found == [1, 7, 15, 9, 15]


def test_what_is_no_queue_file_is_no_job() -> None:
    name = str(Key(5, NOW, "job-00001"))
    assert gauges.count_names([name, ".tmp", "README"]) == gauges.StateCount(1, NOW)
    assert gauges.count_names(["x~.json"]) == gauges.StateCount(1, None)
    assert gauges.count_names([]) == gauges.StateCount(0, None)


def test_a_job_of_tomorrow_is_not_older_than_now() -> None:
    assert gauges.StateCount(1, NOW + timedelta(days=1)).age_s(NOW) == 0


# ---- as long as ever --------------------------------------------------------------------------


@pytest.mark.needs("strace")
def test_what_has_ended_is_not_listed(roots: Roots, tmp_path: Path) -> None:
    """The same calls behind three ended jobs as behind a thousand."""
    queue = fill(roots)
    sqlite.KEPT.close()
    few = calls(roots, tmp_path)
    for number in range(1000):
        put(queue, State.DONE, 5, timedelta(seconds=number))
        ledger.count_job(roots, job(1, f"job-many-{number}"))
    sqlite.KEPT.close()
    assert calls(roots, tmp_path) == few
    assert any("pending" in line for line in few)
    assert not any("/done" in line or "/failed" in line for line in few)


def calls(roots: Roots, tmp_path: Path) -> list[str]:
    """What agentorch-metrics opens below the state, and how often it reads of the ledger."""
    log = tmp_path / "trace"
    argv = ["strace", "-f", "-y", "-e", "trace=openat,pread64", "-o", str(log)]
    argv += [sys.executable, str(BIN / "agentorch-metrics"), "--stdout"]
    subprocess.run(argv, env=environment_of(roots), stdout=subprocess.DEVNULL, check=True)
    lines = log.read_text().splitlines()
    state = str(roots.queue_root.parent)
    opened = [line.partition(" ")[2].strip() for line in lines if "openat(" in line]
    reads = sum("pread64(" in line and "state.db" in line for line in lines)
    # what the tree of a thousand ends has more of is its depth
    assert 0 < reads < 30
    return sorted(line.partition(", O_")[0] for line in opened if state in line)


def test_the_counters_are_read_from_their_own_table(roots: Roots) -> None:
    ledger.count_job(roots, job())
    with sqlite.transaction(roots.state_db, lambda _: None) as db:
        plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {ledger.READ}")]
    assert plan == ["SCAN counts"]


# ---- the command ------------------------------------------------------------------------------


def environment_of(roots: Roots, **variables: str) -> dict[str, str]:
    return {
        **with_package(),
        "AGENTORCH_ENV_FILE": "/dev/null",
        "AGENTORCH_STATE_DIR": str(roots.queue_root.parent),
        **variables,
    }


def run(
    roots: Roots, *arguments: str, umask: int = 0o077, **variables: str
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(BIN / "agentorch-metrics"), *arguments]
    environment = environment_of(roots, **variables)
    return subprocess.run(
        argv, env=environment, umask=umask, capture_output=True, text=True, check=False
    )


def test_the_file_is_for_all_to_read_and_nothing_else_is_left(roots: Roots, tmp_path: Path) -> None:
    fill(roots)
    directory = tmp_path / "node-exporter"
    directory.mkdir()
    path = directory / "agentorch.prom"
    for _ in range(2):
        ended = run(roots, AGENTORCH_METRICS_FILE=str(path))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        assert [found.name for found in directory.iterdir()] == ["agentorch.prom"]
        assert path.stat().st_mode & 0o777 == 0o644
    assert samples(path.read_text())["orchestrator_jobs_total{status=success}"] == 1


def test_where_nobody_would_read_it_one_line_is_said(roots: Roots, tmp_path: Path) -> None:
    ended = run(roots, AGENTORCH_METRICS_FILE=str(tmp_path / "none/agentorch.prom"))
    assert (ended.returncode, ended.stdout) == (0, "")
    where = f"{tmp_path}/none is not there: nothing is written (AGENTORCH_METRICS_FILE)"
    assert ended.stderr == f"agentorch-metrics: {where}\n"


def test_a_broken_ledger_is_said_and_what_is_left_is_written(roots: Roots, tmp_path: Path) -> None:
    fill(roots)
    sqlite.KEPT.close()
    roots.state_db.write_bytes(b"rubbish" * 1000)
    path = tmp_path / "agentorch.prom"
    ended = run(roots, AGENTORCH_METRICS_FILE=str(path))
    assert ended.returncode == 1
    assert f"{roots.state_db}: file is not a database: move it away" in ended.stderr
    assert samples(path.read_text())["agentorch_ledger_readable{}"] == 0


# becomes another user when all is imported: Python itself may lie where nobody else may look
WRITE = """
import os, sys
from pathlib import Path
from agentorch.metrics.exposition import write_textfile
from agentorch.core.errors import Misconfigured
os.setresuid(65534, 65534, 65534)
try:
    write_textfile(Path(sys.argv[1]), b"text")
except Misconfigured as problem:
    sys.exit(str(problem))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_where_we_may_not_write_it_is_said() -> None:
    with TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        argv = [sys.executable, "-c", WRITE, f"{directory}/agentorch.prom"]
        ended = subprocess.run(
            argv, env=with_package(), capture_output=True, text=True, check=False
        )
    assert ended.returncode == 1
    assert "AGENTORCH_METRICS_FILE: " in ended.stderr
    assert "Permission denied: this user must be able to write" in ended.stderr


def test_a_write_that_fails_leaves_nothing(roots: Roots, tmp_path: Path) -> None:
    path = tmp_path / "agentorch.prom"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        exposition.write_textfile(path, b"text")
    assert [found.name for found in tmp_path.iterdir()] == ["agentorch.prom"]


# ---- Prometheus's own tools -------------------------------------------------------------------


def program(name: str, package: str) -> str:
    """A program of Prometheus; skips where it can't be had."""
    found = prometheus.program(name, package)
    if found is None:
        pytest.skip(f"no {name}, and apt-get can't download {package}; not proved here")
    return found


def test_promtool_finds_nothing(roots: Roots) -> None:
    fill(roots)
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=text_of(roots),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.stdout + checked.stderr).splitlines() == [OURS_TO_BEAR]


def test_node_exporter_tells_what_we_wrote(roots: Roots, tmp_path: Path) -> None:
    fill(roots)
    directory = tmp_path / "node-exporter"
    directory.mkdir()
    assert run(roots, AGENTORCH_METRICS_FILE=str(directory / "agentorch.prom")).returncode == 0
    # what a write that was killed leaves is not read
    (directory / ".agentorch.prom.0123456789ab").write_text("rubbish")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [
        program("prometheus-node-exporter", "prometheus-node-exporter"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"),
        *("--collector.textfile", f"--collector.textfile.directory={directory}"),
    ]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as exporter:
        try:
            text = scraped(f"http://127.0.0.1:{port}/metrics")
        finally:
            exporter.terminate()
    found = samples(text)
    assert found["node_textfile_scrape_error{}"] == 0
    written = samples((directory / "agentorch.prom").read_text())
    assert {name: found.get(name) for name in written} == written


def scraped(url: str) -> str:
    """What a server answers that is just starting."""
    until = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
