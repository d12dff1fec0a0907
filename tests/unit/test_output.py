"""Reading what an agent printed, and making text safe to show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.agents.base import Line
from agentorch.output import (
    CHUNK_BYTES,
    DRAINED_BYTES,
    FOLLOWED_LINE_BYTES,
    Follower,
    Splitter,
    head_and_tail,
    lines,
)
from agentorch.text import fenced, one_line, printable

# ---- splitting --------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12)), st.integers(1, 8))
def test_chunks_do_not_matter(chunks: list[bytes], limit: int) -> None:
    """However the bytes arrive, the lines are the same."""
    whole = b"".join(chunks)
    pieces = Splitter("stdout", limit)
    found = [line for chunk in chunks for line in pieces.feed(chunk)] + list(pieces.last())
    together = Splitter("stdout", limit)
    assert found == [*together.feed(whole), *together.last()]


@given(st.binary(), st.integers(1, 8))
def test_every_line_is_there_once(content: bytes, limit: int) -> None:
    splitter = Splitter("stdout", limit)
    found = [*splitter.feed(content), *splitter.last()]
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


@given(st.text(max_size=40), st.integers(0, 30))
def test_head_and_tail(tmp_path_factory: pytest.TempPathFactory, text: str, limit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "shortened"
    path.write_text(text, newline="")
    half = limit // 2
    missing = f"\n[… {len(text) - 2 * half} characters left out …]\n"
    shortened = text[:half] + missing + text[len(text) - half :]
    assert head_and_tail(path, limit) == (text if len(text) <= limit else shortened)


def test_head_and_tail_over_chunks(path: Path) -> None:
    text = "é" * CHUNK_BYTES + "end"
    _append(path, text.encode())
    assert (
        head_and_tail(path, 10) == f"ééééé\n[… {CHUNK_BYTES - 7} characters left out …]\néé" + "end"
    )
    assert head_and_tail(path, len(text)) == text


# ---- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\n\n lines\t", "two lines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("bell\x07 back\x08 null\0", "bell back null"),
        ("\x1bc\x1b(Bsaved", "saved"),
        ("right\u202eleft", "rightleft"),
        ("lone \ud800", "lone ?"),
        ("", ""),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert "\n" not in line
    assert "\x1b" not in line
    line.encode()


def test_one_line_says_that_it_was_cut() -> None:
    assert one_line("x" * 201) == "x" * 199 + "…"
    assert len(one_line("y" * 10_000_000)) == 200


def test_printable_keeps_lines() -> None:
    assert printable("a\r\n\tb\rc\x1b[2Jd") == "a\n\tbcd"


@given(st.text(alphabet="`~\n a"))
def test_nothing_ends_a_fence_early(text: str) -> None:
    first, *inside, last = fenced(text).rstrip("\n").split("\n")
    assert first == last
    assert set(first) == {"`"}
    assert not any(line.strip().startswith(first) for line in inside)
