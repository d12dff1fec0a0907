"""One question over HTTP: what is tried again, and how long anything may take.

A connection, the first byte, the time between two pieces and the whole each have a limit, kept by
one timer (setitimer(2)), which also says every TICK_S that the program is alive. What a provider
may well do better the next time is asked again, after the time that it asks for; where that is
longer than anybody should sit and wait, the question ends at once.
"""

from __future__ import annotations

import email.utils
import json
import math
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import httpx

from agentorch.agents.api.server_sent_events import Events, TooLong
from agentorch.agents.api.wire_formats import DONE, STOPS, Answer, Question, Wire, fault

CONNECT_S = 10.0
LONGEST_WAIT_S = 60.0
TICK_S = 15.0
MAX_ANSWER_CHARS = 8 << 20
MAX_ERROR_BYTES = 64 << 10
# The broker's refusals: what it decided is not for the provider's rules (`ends`).
BROKER = "agentorch: "

_AGAIN = frozenset({408, 409, 425, 429})
_FINAL = ("insufficient_quota", "credit", "billing")
_PASSING = ("overloaded", "api_error", "server_error", "rate_limit", "timeout", "internal")


@dataclass(frozen=True)
class Limits:
    """Seconds, and how often a question is asked at most."""

    total_s: float
    first_byte_s: float = 300
    idle_s: float = 120
    tries: int = 4


class Trouble(Exception):
    """A question that failed. `lines` are the evidence, `after_s` how long the provider wants to
    be left alone, None where it does not say; `again`: asking again may help.
    """

    def __init__(
        self, *lines: str, again: bool, after_s: float | None = None, answer: Answer | None = None
    ) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.again = again
        self.after_s = after_s
        self.answer = answer if answer is not None else Answer()


class Overdue(Trouble):
    """A limit passed."""


# ---- decisions, pure --------------------------------------------------------------------------


def wait_s(trouble: Trouble, tried: int, limits: Limits, left_s: float) -> float | None:
    """Return how long to wait before asking again; None: it ends here."""
    if not trouble.again or tried >= limits.tries:
        return None
    wait = trouble.after_s if trouble.after_s is not None else float(2 ** (tried - 1))
    return wait if wait <= LONGEST_WAIT_S and wait < left_s else None


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return what a response asks for: seconds or a date (RFC 9110, section 10.2.3), or
    milliseconds.
    """
    precise, text = headers.get("retry-after-ms", ""), headers.get("retry-after", "").strip()
    for spelled, unit_s in ((precise, 0.001), (text, 1.0)):
        try:
            seconds = float(spelled) * unit_s
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:  # no date either
        return None
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def trouble_of_response(
    status: int, body: bytes, after_s: float | None, wire_fault: tuple[str, str]
) -> Trouble:
    """Return what a response that is no answer comes to."""
    kind, message = wire_fault
    if message.startswith(BROKER):
        return Trouble(message, again=False)
    words = message or body.decode("utf-8", "replace").strip()[:500]
    waits = () if after_s is None else (f"api retry-after {math.ceil(after_s)}",)
    passing = status in _AGAIN or status >= 500
    final = any(word in f"{kind} {message}".lower() for word in _FINAL)
    line = f"api status {status} {kind}: {words}"
    return Trouble(line, *waits, again=passing and not final, after_s=after_s)


def check_answer(answer: Answer) -> Answer:
    """Return a whole answer. Raises Trouble where it is none, or not all of one."""
    if answer.fault is not None:
        kind, message = answer.fault
        line = f"api error {kind}: {message}" if not message.startswith(BROKER) else message
        again = any(word in kind for word in _PASSING)
        raise Trouble(line, again=again, answer=answer)
    if answer.stop is None and not answer.ended:
        raise Trouble("api cut off: the answer has no end", again=True, answer=answer)
    # a server that ends its stream without a reason had none to complain
    stop = STOPS.get(answer.stop, answer.stop) if answer.stop is not None else DONE
    if stop != DONE:
        raise Trouble(f"api stop {stop} ({answer.stop})", again=False, answer=answer)
    if not answer.text.strip():
        raise Trouble("api empty: the model said nothing", again=False, answer=answer)
    return answer


def document(data: bytes) -> dict[str, Any]:
    """Return an event's JSON object. Raises ValueError."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  (of a document, not of ours)
    return found


# ---- time -------------------------------------------------------------------------------------


class Watch:
    """Raises Overdue in this thread when a limit passes; says that it waits meanwhile."""

    def __init__(self, total_s: float, say: Callable[[str], None]) -> None:
        self._end = time.monotonic() + total_s
        self._say = say
        self._what, self._until = "", self._end

    @property
    def left_s(self) -> float:
        """Return what is left of the whole."""
        return self._end - time.monotonic()

    def allow(self, what: str, seconds: float) -> None:
        """From now on `what` may take so long; never longer than the whole."""
        self._what, self._until = what, min(time.monotonic() + seconds, self._end)
        self._arm()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Return the time during which the timer is ours."""
        before = signal.signal(signal.SIGALRM, self._rang)
        try:
            self._arm()
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _arm(self) -> None:
        left = self._until - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(left, TICK_S)))

    def _rang(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now >= self._end:
            raise Overdue("api overdue: no answer within the step's time", again=False)
        if now >= self._until:
            raise Overdue(self._what, again=True)
        self._say("waiting for the model")
        self._arm()


# ---- asking -----------------------------------------------------------------------------------


class Asker:
    """The questions to a wire's endpoint.
    try's answer, whole or not: it is paid for.
    """

    def __init__(
        self,
        wire: Wire,
        url: str,
        token: str,
        limits: Limits,
        *,
        say: Callable[[str], None],
        heard: Callable[[Answer], None],
    ) -> None:
        self._wire = wire
        self._url = url.rstrip("/") + wire.path
        self._headers = {
            **wire.headers(token),
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
        }
        self._limits = limits
        self._say = say
        self._heard = heard
        self._watch = Watch(limits.total_s, say)

    def ask(self, question: Question) -> Answer:
        """Return the answer. Raises Trouble with what the last try came to."""
        # nothing of the environment: no proxy, no .netrc
        client = httpx.Client(
            verify=ssl.create_default_context() if self._url.startswith("https:") else False,
            trust_env=False,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
        )
        with client, self._watch.running():
            tried = 0
            while True:
                tried += 1
                try:
                    return self._try_once(client, question)
                except Trouble as trouble:
                    self._pause(trouble, tried)

    def _pause(self, trouble: Trouble, tried: int) -> None:
        """Wait before the next try. Raises the trouble where there is none."""
        wait = wait_s(trouble, tried, self._limits, self._watch.left_s)
        if wait is None:
            raise trouble
        self._say(f"{trouble.lines[0]}; again in {wait:g} s")
        try:
            self._watch.allow("", math.inf)
            threading.Event().wait(wait)
        except Overdue:  # the whole is over: what was wrong says more than that
            raise trouble from None

    def _try_once(self, client: httpx.Client, question: Question) -> Answer:
        answer = Answer()
        try:
            self._watch.allow(
                f"api no answer: nothing came within {self._limits.first_byte_s:g} s",
                self._limits.first_byte_s,
            )
            self._exchange(client, question, answer)
        except Trouble as trouble:
            trouble.answer = answer
            raise
        except httpx.TransportError as problem:
            if answer.stop is None:  # else it is whole, whatever became of the connection
                raise Trouble(
                    _broken_stream(problem, answer), again=True, answer=answer
                ) from problem
        except (ValueError, TooLong) as problem:
            raise Trouble(f"api malformed: {problem}", again=True, answer=answer) from problem
        finally:
            self._watch.allow("", math.inf)
            self._heard(answer)
        return check_answer(answer)

    def _exchange(self, client: httpx.Client, question: Question, answer: Answer) -> None:
        content = json.dumps(self._wire.body(question)).encode()
        with client.stream("POST", self._url, content=content, headers=self._headers) as response:
            if response.status_code != 200:
                raise _refusal(response)
            if "event-stream" not in response.headers.get("content-type", ""):
                raise _no_stream(response)
            self._hear(response, answer)

    def _hear(self, response: httpx.Response, answer: Answer) -> None:
        events = Events()
        stalled = f"api stalled: nothing more came within {self._limits.idle_s:g} s"
        for chunk in response.iter_bytes():
            self._watch.allow(stalled, self._limits.idle_s)
            for data in events.feed(chunk):
                if data == b"[DONE]":
                    answer.ended = True
                else:
                    self._wire.hear(document(data), answer)
            if answer.ended or answer.fault is not None:
                return
            if answer.chars > MAX_ANSWER_CHARS:
                line = f"api stop length (more than {MAX_ANSWER_CHARS} characters)"
                raise Trouble(line, again=False)


def _broken_stream(problem: httpx.TransportError, answer: Answer) -> str:
    if answer.parts:
        return f"api cut off: {problem}"
    return f"api network {type(problem).__name__}: {problem}"


def _beginning(response: httpx.Response) -> bytes:
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    return body


def _fault(body: bytes) -> tuple[str, str]:
    """Return the error in a body; empty words where it holds none."""
    try:
        found = document(body)
    except ValueError:  # a proxy's page, or nothing
        return "", ""
    return fault(found.get("error") or found)


def _refusal(response: httpx.Response) -> Trouble:
    body = _beginning(response)
    after_s = retry_after_s(response.headers, datetime.now(UTC))
    return trouble_of_response(response.status_code, body, after_s, _fault(body))


def _no_stream(response: httpx.Response) -> Trouble:
    """Return an error that came as a success, or something that is no model's answer at all."""
    body = _beginning(response)
    kind, message = _fault(body)
    if message.startswith(BROKER):
        return Trouble(message, again=False)
    if message:
        return Trouble(f"api error {kind}: {message}", again=False)
    words = body[:200].decode("utf-8", "replace")
    return Trouble(f"api malformed: no stream of events but {words!r}", again=False)
