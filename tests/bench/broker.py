"""What the broker adds to a model's answer, alone and behind the relay, and what it holds."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from agentorch.attempt.broker_access import relay_argv
from agentorch.broker import client
from agentorch.broker.client import Grant
from agentorch.config.settings import load
from tests.bench.idle import children
from tests.bench.measure import Figure, Goal, Options, interleaved, seconds
from tests.bench.memory import peak_mib
from tests.bench.streams import Connect, Heard, Stream, ask, provider

MS = 1000
MIB = 1 << 20
PATH = "/anthropic/v1/messages"
# What waits in the broker and in the relay is a few pieces, however long the answer: a tenth of
# these 50 MiB leaves room for what the allocator keeps.
GROWTH = Goal(5)


@dataclass(frozen=True)
class Ways:
    """The provider, reached directly, through a broker, and through relay and broker."""

    connects: dict[str, Connect]
    token: str
    broker: int
    relay: int

    def asked(self, way: str, stream: Stream, *, pause_s: float = 0) -> Heard:
        """What a client hears by one of them."""
        return ask(self.connects[way], stream.request(self.token, PATH), pause_s=pause_s)


def figures(options: Options) -> Iterator[Figure]:
    """Time to the first event, time of each event, memory for a long answer, and the start."""
    with options.scratch() as scratch:
        with opened(scratch / "ways") as ways:
            yield from first_byte(ways, options)
            yield from events(ways, options)
            yield from memory(ways, options)
        yield from starts(scratch / "starts", options)


@contextmanager
def opened(directory: Path) -> Iterator[Ways]:
    """All three ways to one provider."""
    with ExitStack() as stack:
        place = stack.enter_context(provider())
        url = f"http://{place[0]}:{place[1]}"
        before = set(children(os.getpid()))
        path = stack.enter_context(client.running(directory, environment(directory, url)))
        (broker,) = set(children(os.getpid())) - before
        token = granted(directory)
        stack.enter_context(relayed := Relayed(path))
        connects: dict[str, Connect] = {
            "direct": partial(socket.create_connection, place),
            "broker": partial(client.connect, path),
            "relayed": partial(socket.create_connection, relayed.place),
        }
        yield Ways(connects, token, broker, relayed.pid)


def environment(directory: Path, url: str) -> dict[str, str]:
    """A broker's, with a key and this provider."""
    given = {
        "PATH": os.environ["PATH"],
        "AGENTORCH_ENV_FILE": "/dev/null",
        "AGENTORCH_CONFIG_DIR": str(directory),
        "AGENTORCH_STATE_DIR": str(directory),
        "LOG_LEVEL": "ERROR",
        "ANTHROPIC_API_KEY": "sk-ant-" + "9f86d081884c7d659a2feaa0c55ad015",
        "ANTHROPIC_BASE_URL": url,
    }
    return client.environment_of(load(given))


def granted(directory: Path) -> str:
    """A token that a broker in this directory knows."""
    grants, token = client.grants_directory(directory), client.new_token()
    grants.mkdir(mode=0o700, parents=True, exist_ok=True)
    grant = Grant("bench", "01", 1, "claude", time.time() + 3600, providers=("anthropic",))
    client.write_grant(grants, grant, token)
    return token


class Relayed:
    """A relay before a broker's socket, on a port of its own, while the context lasts."""

    def __init__(self, path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.place: tuple[str, int] = listener.getsockname()
            self._process = subprocess.Popen(
                relay_argv(path, listener, ("cat",)),
                stdin=subprocess.PIPE,
                pass_fds=(listener.fileno(),),
            )
        self.pid = self._process.pid

    def __enter__(self) -> Relayed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


# ---- the figures ------------------------------------------------------------------------------


def first_byte(ways: Ways, options: Options) -> Iterator[Figure]:
    """From a new connection and a request of 88 kB to the first event."""
    stream = Stream(events=1)

    def first(way: str) -> float:
        return ways.asked(way, stream).first_s

    taken = rounds(ways, first, options.size(60, 2))
    yield from added("first_byte", taken, Goal(5))


def events(ways: Ways, options: Options) -> Iterator[Figure]:
    """From an event's sending to its arrival, in a stream of one every 5 ms."""
    stream = Stream(events=options.size(100, 3), gap_s=0.005)

    def event(way: str) -> float:
        return median(ways.asked(way, stream).events_s)

    taken = rounds(ways, event, options.size(10, 1))
    yield from added("event", taken, Goal(1))


def rounds(ways: Ways, side: Callable[[str], float], count: int) -> dict[str, list[float]]:
    """Each way in turn, warmed up before."""
    sides = {way: partial(side, way) for way in ways.connects}
    interleaved(sides, 1)
    return interleaved(sides, count)


def added(name: str, taken: dict[str, list[float]], goal: Goal) -> Iterator[Figure]:
    """What the two ways of ours take more than the direct one, and that one."""
    for way in ("broker", "relayed"):
        more = median(ours - bare for ours, bare in zip(taken[way], taken["direct"], strict=True))
        yield Figure(f"{name}_added_{way}", more * MS, "ms", goal)
    yield Figure(f"{name}_direct", median(taken["direct"]) * MS, "ms")


def memory(ways: Ways, options: Options) -> Iterator[Figure]:
    """How much more broker and relay ever hold with an answer of 50 MiB than with short ones.

    Once in events, once as a single one; each time the client reads nothing at first.
    """
    much = options.size(50 * MIB, MIB)
    streams = {"events": Stream(much // 1024, 1024), "one_event": Stream(1, much)}
    for name, stream in streams.items():
        before = {"broker": peak_mib(ways.broker), "relay": peak_mib(ways.relay)}
        heard = ways.asked("relayed", stream, pause_s=options.size(2, 0))
        if heard.count_bytes < much:
            raise RuntimeError(f"{heard.count_bytes} bytes of {much} came")
        yield Figure(
            f"growth_broker_{name}", peak_mib(ways.broker) - before["broker"], "MiB", GROWTH
        )
        yield Figure(f"growth_relay_{name}", peak_mib(ways.relay) - before["relay"], "MiB", GROWTH)
    yield Figure("broker_peak", peak_mib(ways.broker), "MiB")
    yield Figure("relay_peak", peak_mib(ways.relay), "MiB")


def starts(directory: Path, options: Options) -> Iterator[Figure]:
    """From nothing to the first answer of a broker of a step's own."""
    given = environment(directory, "http://127.0.0.1:9")

    def start() -> float:
        token = granted(directory)
        began = time.perf_counter()
        with client.running(directory, given) as path:
            client.account(path, token)
            return time.perf_counter() - began

    sides = {
        "start": start,
        "pass": lambda: seconds(lambda: subprocess.run(("python3", "-c", "pass"), check=True)),
    }
    taken = interleaved(sides, options.size(9, 1))
    yield Figure("broker_start", median(taken["start"]) * MS, "ms")
    yield Figure("broker_start_ratio", median(taken["start"]) / median(taken["pass"]), "times pass")
