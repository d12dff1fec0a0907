"""Reading a document from outside: strictly, within bounds, with the place of what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from agentorch.core.errors import Invalid

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64

Document = dict[str, Any]


def parse(content: bytes | str) -> Any:
    """Return a JSON document, strictly: UTF-8, no duplicate keys, no NaN, bounded size and depth.

    Raises Invalid with the line and column of what is wrong.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise Invalid([f"larger than {MAX_DOCUMENT_BYTES} bytes"])
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise Invalid([f"not JSON: {place}: {problem.msg}"]) from problem
    except UnicodeDecodeError as problem:
        raise Invalid([f"not UTF-8: byte {problem.start}"]) from problem
    except UnicodeEncodeError as problem:
        raise Invalid(["a string holds half of a surrogate pair"]) from problem
    except RecursionError as problem:
        raise Invalid([f"nested deeper than {MAX_DEPTH} levels"]) from problem
    except ValueError as problem:  # ours, from the two hooks, or a number of thousands of digits
        raise Invalid([f"not JSON: {problem}"]) from problem
    if _depth_exceeds(document, MAX_DEPTH):
        raise Invalid([f"nested deeper than {MAX_DEPTH} levels"])
    return document


def _unique(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        often = Counter(key for key, _ in pairs)
        twice = min(key for key, times in often.items() if times > 1)
        raise ValueError(f"key {twice!r} stands there twice")
    return document


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _depth_exceeds(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)
        ]
        if not level:
            return False
    return True


def _inner(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
