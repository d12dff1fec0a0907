"""POST /webhook with 8 connections, every answer durable; and with many jobs waiting before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from agentorch.contracts.complete import new_id
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.storage.atomic import encode_line
from tests.bench.idle import fields
from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio
from tests.bench.site import Site, accepted

CONNECTIONS = 8
TOKEN = "dev-token"
JOB = {
    "goal": "measure",
    "steps": [{"step_id": "01", "agent": "exec", "role": "x", "prompt": "true"}],
}
# A process of its own: its time is not the server's.
CLIENT = Path(__file__).with_name("webhook_client.py")


def figures(options: Options) -> Iterator[Figure]:
    """Requests a second, empty and behind a million; the memory of a webhook that waits."""
    count = options.size(400, 8)
    waiting = options.size(1_000_000, 100)
    with options.scratch() as scratch:
        empty, full = Site(scratch / "empty", _variables()), Site(scratch / "full", _variables())
        full.queue.prepare()
        fill(full, waiting)
        with door(empty) as (pid, port), door(full) as (_, full_port):
            yield Figure("webhook_memory", int(fields(pid, "VmRSS")[0]) / 1024, "MiB")
            sides = {"empty": posts(port, count), "full": posts(full_port, count)}
            interleaved(sides, 1)
            taken = interleaved(sides, options.size(10, 1))
    rate = count / median(taken["empty"])
    yield Figure("webhook_posts", rate, "posts/s", Goal(1500, at_least=True))
    ratio = median_ratio(taken["empty"], taken["full"])
    yield Figure("webhook_posts_full", ratio, "full/empty", Goal(0.9, at_least=True))


def _variables() -> dict[str, str]:
    return {"WEBHOOK_RATE_LIMIT_MAX_REQUESTS": "0", "WEBHOOK_TOKENS": "", "WEBHOOK_TOKEN": TOKEN}


def fill(site: Site, count: int) -> None:
    """Puts jobs into pending/: the names are what is measured behind, one inode serves for many."""
    job, document = accepted(datetime.now(UTC), {"01": "true"})
    pending = site.queue.paths.state(State.PENDING)
    content, first = encode_line(document), pending
    for number in range(count):
        key = Key(5, job.submitted_at, new_id(job.submitted_at))
        path = pending / str(key)
        if number % 30_000 == 0:
            first = path
            first.write_bytes(content)
        else:
            os.link(first, path)


@contextmanager
def door(site: Site) -> Iterator[tuple[int, int]]:
    """A webhook; its process id and its port."""
    site.directory.mkdir(exist_ok=True)
    environment = {**site.environment(), "LOG_LEVEL": "INFO"}
    argv = site.command_argv("webhook", "--bind", "127.0.0.1:0")
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", process.stderr.readline())
        if port is None:
            raise RuntimeError("the webhook did not start")
        # somebody has to read what it says of every request, as journald does
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process.pid, int(port[1])
        finally:
            process.terminate()


def posts(port: int, count: int) -> Callable[[], float]:
    """How long so many posts take, over all connections together."""
    argv = [sys.executable, str(CLIENT), str(port), str(CONNECTIONS), str(count), TOKEN]

    def post() -> float:
        asked = json.dumps(JOB)
        ended = subprocess.run(argv, input=asked, text=True, capture_output=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"a post failed: {ended.stderr}")
        return float(ended.stdout)

    return post
