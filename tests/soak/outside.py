"""What is around an installation for a month: its provider, its receiver, its notify.d program.

What they saw, and no disk of the installation tells, is kept in `Seen` for the audit.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from agentorch.scripted_model import ModelDouble, Turn, Usage
from agentorch.scripted_model.script import Answer, Fault
from agentorch.scripted_model.server import ModelRequest
from agentorch.storage.json_files import read_json
from tests.support.clock import Clock
from tests.support.receiver import Receiver

TOKEN_USD = 0.001
PRICES = '[[price]]\nmodels = ["priced-1"]\ninput = 1000.0\noutput = 0.0\n'
# What a receiver does beside answering with a status.
DIES, HANGS = 0, -1
HANG_S = 60
DEAF = "deaf"
HEARER = f'#!/bin/sh\n[ ! -e "$HOME/{DEAF}" ] || exit 1\ncat >>"$HOME/heard"\n'


@dataclass
class Remains:
    """What a job had come to when retention took it. `spent_usd` is the ledger's word."""

    ends: int
    cost_usd: float
    attempts: int
    spent_usd: float = 0.0
    lost_usd: float = 0.0
    reason: str = ""


@dataclass
class Seen:
    """What happened and is not to be read from the state directory.

    `billed` is in tokens, by UTC day and job. Of a callback that was taken, by its webhook-id, the
    bodies; `unanswered` counts those whose receiver took them and was silent. `waited` are the jobs
    that waited for a human, and since when, while the program of notify.d could hear.
    """

    submitted: list[str] = field(default_factory=list)
    wants_callback: set[str] = field(default_factory=set)
    decisions: Counter[str] = field(default_factory=Counter)
    collected: dict[str, Remains] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    billed: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken: dict[str, list[bytes]] = field(default_factory=dict)
    unanswered: Counter[str] = field(default_factory=Counter)
    told: dict[str, set[str]] = field(default_factory=dict)  # webhook-ids by job
    waited: set[tuple[str, str]] = field(default_factory=set)
    happened: Counter[str] = field(default_factory=Counter)


class Model(ModelDouble):
    """Bills as many tokens as a prompt says, and is behind a wall until the moment it names.

    While a runner is to be killed it bills no more than the attempt had reserved: what a provider
    bills for an answer that nobody read, nobody counted.
    """

    def __init__(self, clock: Clock, seen: Seen, artifacts: Path) -> None:
        super().__init__([Turn()])
        self.clock = clock
        self.seen = seen
        self.artifacts = artifacts
        self.is_careful = False
        self.doomed: subprocess.Popen[str] | None = None

    def next(self, asked: ModelRequest) -> Answer:
        text, now = asked.body.decode(), self.clock.now()
        wall_until = re.search(r"wall=(\S+?Z)", text)
        if wall_until is not None:
            until = datetime.fromisoformat(wall_until[1].replace("Z", "+00:00"))
            if now < until:
                return Fault(429, retry_after=format_datetime(until, usegmt=True))
        return self._billed(text, now.date().isoformat())

    def _billed(self, text: str, day: str) -> Answer:
        job_id, tokens = _word("job", text), int(_word("tokens", text) or 0)
        count = min(tokens, self._most(job_id)) if self.is_careful else tokens
        self.seen.billed[day, job_id] += count
        if self.doomed is not None:
            self.doomed.kill()
            self.doomed.wait()
            self.seen.happened["killed while it was paid for"] += 1
        return Turn("Done.", usage=Usage(input=count, output=0, cached=0))

    def _most(self, job_id: str) -> int:
        found = (self.artifacts / job_id).glob("steps/*/attempts/*/allowance.json")
        latest = max(found, key=lambda path: path.stat().st_mtime_ns)
        return int(((read_json(latest) or {})["max_cost_usd"] + TOKEN_USD / 2) / TOKEN_USD)


def _word(name: str, text: str) -> str:
    found = re.search(rf"{name}=([\w-]+)", text)
    return "" if found is None else found[1]


class Listener:
    """What the receiver does with what it is told: its status says it."""

    def __init__(self, receiver: Receiver, seen: Seen) -> None:
        self.receiver = receiver
        self.seen = seen
        self.asked = threading.Event()
        self.over = threading.Event()
        receiver.by_hand = self.hear

    def hear(self, request: BaseHTTPRequestHandler) -> None:
        """One request. Who hangs has taken every other one, and never says so."""
        body, webhook_id = self.receiver.told[-1].body, request.headers["webhook-id"]
        match self.receiver.status:
            case 0:  # DIES, in the middle
                request.close_connection = True
                return
            case -1:  # HANGS
                if int(webhook_id[-1], 16) % 2:
                    self._take(webhook_id, body)
                    self.seen.unanswered[webhook_id] += 1
                self.asked.set()
                self.over.wait(HANG_S)
                request.close_connection = True
                return
            case 204:
                self._take(webhook_id, body)
        request.send_response(self.receiver.status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _take(self, webhook_id: str, body: bytes) -> None:
        self.seen.taken.setdefault(webhook_id, []).append(body)
        self.seen.told.setdefault(json.loads(body)["job_id"], set()).add(webhook_id)
