"""Bytes between a client and the host that it may reach, both ways, as long as it may.

What one side does not take is not read from the other. An end is passed on and the other way stays
open; a break ends both. A tunnel is looked at now and then, and cut when nothing moved in it for
too long, or when it may no longer be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast


class Side(asyncio.Protocol):
    """One end of a tunnel. `other` is set before either has a connection."""

    other: Side

    def __init__(self, moved: Callable[[], None], gone: Callable[[], None]) -> None:
        self._moved = moved
        self._gone = gone
        self.transport: asyncio.Transport | None = None
        self.received_bytes = 0
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it can be written to; nothing is read before the other side is there."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Go to the other side at once."""
        self._moved()
        self.received_bytes += len(data)
        assert self.other.transport is not None
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; True: this side can still be written to."""
        self._moved()
        self.ended = True
        if self.other.transport is not None:
            self._pass_end(self.other.transport)
        return not self.other.ended

    def _pass_end(self, transport: asyncio.Transport) -> None:
        if self.other.ended:
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # broken meanwhile, and nobody told us yet
            transport.abort()

    def pause_writing(self) -> None:
        """Stop reading from the other side: this one takes no more for now."""
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the other side again."""
        self._moved()
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the other side get what is on its way to it, then end it too."""
        if self.other.transport is not None:
            self.other.transport.close()
        self._gone()


class Tunnel:
    """Two sides and a look at them every `look_s`: cut after `idle_s` without a byte, or as soon
    as `may_be()` is false. `ended(sent_bytes, received_bytes, why)` is called once, at its end;
    `why` is empty where the two sides ended it.
    """

    def __init__(
        self,
        may_be: Callable[[], bool],
        ended: Callable[[int, int, str], None],
        idle_s: float,
        look_s: float,
    ) -> None:
        self.near = Side(self._note_movement, self._side_closed)
        self.far = Side(self._note_movement, self._side_closed)
        self.near.other, self.far.other = self.far, self.near
        self._may_be = may_be
        self._ended = ended
        self._idle_s = idle_s
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._left = 2
        self._why = ""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, near: asyncio.Transport, greeting: bytes, early: bytes) -> None:
        """Join both sides: `near` gets the greeting, and `early` is what it sent before."""
        assert self.far.transport is not None
        self._timer = self._loop.call_later(self._look_s, self._look)
        self.near.transport = near
        near.set_protocol(self.near)
        near.write(greeting)
        if early:
            self.near.data_received(early)
        self.far.transport.resume_reading()
        near.resume_reading()

    def cut(self, why: str) -> None:
        """End both sides at once."""
        self._why = self._why or why
        for side in (self.near, self.far):
            if side.transport is not None:
                side.transport.abort()

    def _note_movement(self) -> None:
        self._moved_at = self._loop.time()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._look_s, self._look)
        if not self._may_be():
            self.cut("its grant is over")
        elif self._loop.time() - self._moved_at > self._idle_s:
            self.cut(f"nothing moved for {self._idle_s:g} s")

    def _side_closed(self) -> None:
        self._left -= 1
        if not self._left and self._timer is not None:
            self._timer.cancel()
            self._ended(self.near.received_bytes, self.far.received_bytes, self._why)
