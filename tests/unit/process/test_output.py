"""Reading what an agent printed, and making text safe to show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.core.process_end import Line
from agentorch.process.output import (
    CHUNK_BYTES,
    DRAINED_BYTES,
    FOLLOWED_LINE_BYTES,
    MANY_LINES,
    MARGIN_CHARS,
    Follower,
    Kept,
    Splitter,
    head_and_tail,
    lines,
)

# ---- splitting --------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12)), st.integers(1, 8))
def test_chunks_do_not_matter(chunks: list[bytes], limit: int) -> None:
    """However the bytes arrive, the lines are the same."""
    whole = b"".join(chunks)
    pieces = Splitter("stdout", limit)
    found = [line for chunk in chunks for line in pieces.feed(chunk)] + list(pieces.rest())
    together = Splitter("stdout", limit)
    assert found == [*together.feed(whole), *together.rest()]


@given(st.binary(), st.integers(1, 8))
def test_every_line_is_there_once(content: bytes, limit: int) -> None:
    splitter = Splitter("stdout", limit)
    found = [*splitter.feed(content), *splitter.rest()]
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert len(found) == len(expected)
    for line, raw in zip(found, expected, strict=True):
        assert line.cut == (len(raw) > limit)
        if not line.cut:
            assert line.text == raw.decode("utf-8", "replace")


def test_a_cut_does_not_split_a_character() -> None:
    splitter = Splitter("stdout", 4)
    assert list(splitter.feed("aaaé\nb\n".encode())) == [
        Line("stdout", "aaa", cut=True),
        Line("stdout", "b"),
    ]


# ---- following --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "stdout"
    path.touch()
    return path


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_following(path: Path) -> None:
    follower = Follower(path, "stdout")
    assert list(follower.read()) == []
    _append(path, b"one\ntw")
    assert follower.behind
    assert list(follower.read()) == [Line("stdout", "one")]
    assert not follower.behind
    _append(path, b"o\nthree")
    assert list(follower.read()) == [Line("stdout", "two")]
    assert list(follower.drain()) == [Line("stdout", "three")]
    follower.close()


def test_a_file_that_became_shorter_is_read_from_its_beginning(path: Path) -> None:
    follower = Follower(path, "stdout")
    _append(path, b"a long line\nand half")
    assert list(follower.read()) == [Line("stdout", "a long line")]
    os.truncate(path, 0)
    _append(path, b"new\n")
    assert list(follower.read()) == [Line("stdout", "new")]
    follower.close()


def test_drain_leaves_out_the_middle_of_a_flood(path: Path) -> None:
    follower = Follower(path, "stdout")
    _append(path, b"first\n")
    assert list(follower.read()) == [Line("stdout", "first")]
    os.truncate(path, DRAINED_BYTES * 2)  # a hole: one line of zeros
    _append(path, b"\nlast\n")
    found = list(follower.drain())
    assert found[0] == Line("stdout", f"[… {DRAINED_BYTES} bytes not followed …]", cut=True)
    assert found[1:] == [Line("stdout", "last")]
    follower.close()


def test_limits_of_a_line(path: Path) -> None:
    _append(path, b"x" * FOLLOWED_LINE_BYTES + b"\n" + b"y" * (FOLLOWED_LINE_BYTES + 1) + b"\n")
    follower = Follower(path, "stdout")
    found = [(len(line.text), line.cut) for line in follower.drain()]
    assert found == [(FOLLOWED_LINE_BYTES, False), (FOLLOWED_LINE_BYTES, True)]
    assert [line.cut for line in lines(path, "stdout")] == [False, False]
    follower.close()


def test_lines_of_a_symlink_are_not_read(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        list(lines(link, "stdout"))


# ---- shortening -------------------------------------------------------------------------------


@given(st.text("ab\né", max_size=3000), st.integers(0, 2500))
def test_the_ends_are_those_of_the_text_and_no_word_is_cut_in_two(
    tmp_path_factory: pytest.TempPathFactory, text: str, limit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "shortened"
    path.write_text(text, newline="")
    ends = head_and_tail(path, limit)
    if len(text) <= limit:
        assert ends == Kept(text)
        return
    assert len(ends.head) + ends.missing + len(ends.tail) == len(text)
    assert len(ends.head) + len(ends.tail) <= limit
    assert text.startswith(ends.head)
    assert text.endswith(ends.tail)
    before = text[: len(text) - len(ends.tail)]
    assert not ends.head or ends.head.endswith("\n") or "\n" not in text[: limit // 2]
    assert not ends.tail or before.endswith("\n") or "\n" not in text[-(limit // 2) :]


def test_head_and_tail_over_chunks(path: Path) -> None:
    text = "é" * CHUNK_BYTES + "end"
    _append(path, text.encode())
    ends = head_and_tail(path, 2000)
    assert ends.head == "é" * (1000 - MARGIN_CHARS)
    assert ends.tail == "é" * (997 - MARGIN_CHARS) + "end"
    assert head_and_tail(path, len(text)) == Kept(text)


def test_a_flood_of_lines_is_read_at_both_ends(path: Path) -> None:
    _append(path, b"first\n" + b"y\n" * (8 << 20) + b"last\n")
    found = [line.text for line in lines(path, "stdout")]
    assert (found[0], found[-1]) == ("first", "last")
    assert MANY_LINES < len(found) < 4 << 20
