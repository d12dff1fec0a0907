"""The forms of secrets: the tables of known ones, and the search for them.

A text is searched as bytes, one a character. Cheap searches for literals find the few places where
a pattern is tried. Every pattern is bounded or possessive, so the time is linear in the text
whatever it says.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int, str]

# ---- tokens: a literal that begins them, then characters of a key ------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str
    prefix: bytes
    rest: bytes
    # The prefix may be part of a word or of base64: it counts only where a word begins.
    common: bool = False


_TOKENS = (
    _Token("anthropic", b"sk-ant-", rb"[A-Za-z0-9_-]{16,}+"),
    _Token("openai", b"sk-", rb"(?:proj|svcacct|admin|or)-[A-Za-z0-9_-]{20,}+"),
    _Token("openai", b"sk-", rb"(?=[A-Za-z]*[0-9])[A-Za-z0-9]{20,}+", common=True),
    _Token("stripe", b"k_live_", rb"[A-Za-z0-9]{16,}+"),
    _Token("stripe", b"whsec_", rb"[A-Za-z0-9]{24,}+"),
    *(_Token("github", b"gh%c_" % letter, rb"[A-Za-z0-9]{36,}+") for letter in b"pousr"),
    _Token("github", b"github_pat_", rb"[A-Za-z0-9_]{22,}+"),
    *(
        _Token("gitlab", prefix, rb"[A-Za-z0-9_.-]{20,}+")
        for prefix in (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glcbt-")
    ),
    _Token("slack", b"xox", rb"[abeoprs]-[A-Za-z0-9-]{15,}+"),
    _Token("slack", b"xapp-", rb"[0-9]-[A-Za-z0-9-]{15,}+"),
    _Token("aws", b"AKIA", rb"[A-Z0-9]{16}(?![A-Za-z0-9])", common=True),
    _Token("aws", b"ASIA", rb"[A-Z0-9]{16}(?![A-Za-z0-9])", common=True),
    _Token("google", b"AIza", rb"[A-Za-z0-9_-]{35,}+", common=True),
    _Token("google", b"GOCSPX-", rb"[A-Za-z0-9_-]{20,}+"),
    _Token("npm", b"npm_", rb"[A-Za-z0-9]{36,}+", common=True),
    _Token("pypi", b"pypi-AgE", rb"[A-Za-z0-9_-]{30,}+"),
    _Token("huggingface", b"hf_", rb"[A-Za-z0-9]{30,}+", common=True),
    *(_Token("digitalocean", b"do%c_v1_" % letter, rb"[a-f0-9]{64}") for letter in b"opr"),
    _Token("sendgrid", b"SG.", rb"[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,}+", common=True),
    _Token("twilio", b"SK", rb"[0-9a-f]{32}(?![A-Za-z0-9])", common=True),
    _Token(
        "jwt",
        b"eyJ",
        rb"[A-Za-z0-9_-]{10,}+\.eyJ[A-Za-z0-9_-]{10,}+(?:\.[A-Za-z0-9_-]*+)?",
        common=True,
    ),
)

# No token is shorter than a run of 20, and an edge is known by the 4 characters before it.
_RUN = b"a" * 20
_BEFORE = 4
_SHAPE = bytes(
    ord("a" if char.isascii() and (char.isalnum() or char in "_.-") else " ")
    for char in map(chr, range(256))
)

# In a line, one look for all prefixes is faster than one for each.
_ANY_PREFIX = re.compile(b"|".join(re.escape(token.prefix) for token in _TOKENS))
_SHORT = 1000


@cache
def _token_pattern(token: _Token) -> re.Pattern[bytes]:
    """Return the prefix stands first, and alone: so the search for it is a fast one."""
    prefix = re.escape(token.prefix)
    return re.compile(prefix + (_edge(prefix) if token.common else b"") + token.rest)


def _edge(prefix: bytes) -> bytes:
    """Not inside a word; but right behind an escape of JSON or a URL, or a terminal's colour."""
    behind = (rb"\\[nrt]", rb"%[0-9A-Fa-f]{2}", rb"\[[0-9]m", rb"[;0-9][0-9]m")
    return (
        rb"(?:(?<![A-Za-z0-9]"
        + prefix
        + b")"
        + b"".join(b"|(?<=" + escape + prefix + b")" for escape in behind)
        + b")"
    )


# ---- phrases: around a word (given in lower case); the secret is the group, else all of it -----

_BASE64 = rb"([A-Za-z0-9+/]{40,}+={0,2})"
_CREDENTIAL = rb"[ \t]{1,4}([A-Za-z0-9._~+/-]{12,}+={0,2})"
_BASIC = rb"(?i:authorization\\?[\"']?[ \t]{0,4}[:=,][ \t]{0,4}\\?[\"']?(?:basic|token|bot))"
_PHRASES: tuple[tuple[str, bytes, bytes], ...] = (
    (
        "slack",
        b"hooks.slack.com/",
        rb"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,}+",
    ),
    ("azure", b"accountkey=", rb"(?i:accountkey)=" + _BASE64),
    ("azure", b"sharedaccesskey=", rb"(?i:sharedaccesskey)=" + _BASE64),
    ("authorization", b"bearer", rb"(?i:bearer)(?=[^0-9\0]{0,64}[0-9])" + _CREDENTIAL),
    ("authorization", b"authorization", _BASIC + _CREDENTIAL),
    (
        "url-password",
        b"://",
        rb"://[^\s/:@\"'`<>\\\0]{0,256}+:([^\s/@\"'`<>\\\0]{5,256}+)@(?!sha256:)[A-Za-z0-9\[_.-]",
    ),
)
_COMPILED = tuple((kind, word, re.compile(pattern)) for kind, word, pattern in _PHRASES)

# Claude Code gives its tools one: a word between its own processes, gone with them.
_OF_A_RUN = b"claude_code_messaging_"


# ---- assignments: the name of a secret, then a value that looks random -------------------------

_NAMES = (b"passw", b"passphrase", b"pwd", b"secret", b"token", b"credential", b"key")
_KEY_OF = re.compile(
    rb"(?:api|auth|access|secret|private|account|encryption|signing|master|session|service|admin"
    rb"|client|app|hmac|cipher|deploy|license)[-_. ]?\Z"
)
_ASSIGNED = re.compile(
    rb"""(?P<suffix>[A-Za-z0-9_.-]{0,40}+)
    \\{0,3}["'`]?\]?
    (?:[ ]?:[ ]?[A-Za-z]{1,12}[ ]?=|[ \t]{0,16}(?:=>|:=|==?|:|>))[ \t]{0,16}
    (?:\\{0,3}["'`](?P<quoted>[^"'`\\\s\0]{10,256}+)
      |(?P<bare>[^\s"'`\\,;(){}<>\[\]=|\0]{12,256}+={0,2})(?![(\[{]))""",
    re.VERBOSE,
)
_ABOUT = re.compile(
    rb"(?i)(?:hash|sha\d|digest|md5|sum|file|path|dir|name|id|ids|url|uri|type|count|len|length|size"
    rb"|limit|expir\w*|ttl|at|time|date|class|field|prefix|regex|pattern|kind|env|var|param|label"
    rb"|title|hint|help|message|error|version|algorithm|alg|arn|ref|format|usage|izer|ize)s?\Z"
)
_REST = re.compile(rb"[^\s\"'`\\,;(){}<>\[\]|\0]*+")

# Each is tried at the value's beginning: an id, a hash, a place, a name of code, words, a version.
_HARMLESS = re.compile(
    rb"""(?ix)
      [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z
    | sha(?:1|256|384|512)[-:]
    | [a-z][a-z0-9+.]*+:// | data: | [/~$%&@*!] | \.{1,2}/ | [{<(\[]
    | [a-z_]\w*+(?:(?:\.|::|->)[a-z_]\w*+)++\Z
    | [a-z]++(?:[-_ .:/][a-z]++)*+[-_ .:/]?\d{0,4}\Z
    | v?\d++(?:[.:-]\d++)++
    """
)
_COMPUTED = re.compile(rb"\$[{(A-Za-z_]|\{\{|%[sd(]|\(\)|\.\.\.|#\{")
_FILLER = re.compile(
    rb"(?i)example|placeholder|change[-_]?me|your[-_]|replace|dummy|redacted|insert[-_]|x{6}|\*{3}"
    rb"|[-_.]here\b|[.0]{8}|\.{3}|<|not[-_]?a[-_]?real"
)
_NAMED = re.compile(rb"(?i)secret|passw|passphrase|token|credential|api[-_]?key|pwd")
_HEX = re.compile(rb"[0-9A-Fa-f]{40}(?:[0-9A-Fa-f]{24})?\Z")
_SNAKE_CASE = re.compile(rb"[a-z_][a-z0-9]*_[a-z0-9_]*\Z")
_DIGIT = re.compile(rb"[0-9]")
_CLASS_RUN = re.compile(rb"[a-z]+|[A-Z]+|[0-9]+|[^A-Za-z0-9]+")
_LOWER_OR_NUMBER = re.compile(rb"[a-z]{0,11}|[0-9.:]+")

# ---- private keys ------------------------------------------------------------------------------

_PEM_BEGIN = re.compile(
    rb"-{4,5}[ ]?BEGIN[ ][A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?[ ]?-{4,5}"
    rb"|Private-Lines:[ ]\d{1,3}"
)
PEM_END = re.compile(rb"-{4,5}[ ]?END[ ][A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?[ ]?-{4,5}")
# Base64 lines with whatever stands around them: indentation, a diff's + or -, quotes, "\n".
_GLUE = rb"[ \t\r\n+>|#*\"',;\\]|-(?!----?[ ]?(?:BEGIN|END))"
_PEM_BODY = re.compile(
    rb"(?:" + _GLUE + rb"|(?<=\\)[nrt]|[A-Za-z0-9+/=]{16,}+"
    rb"|(?:Proc-Type|DEK-Info|Version|Comment|Charset|Private-MAC):[^\n\\\0]{0,120}+)*+"
    rb"(?:=?[A-Za-z0-9+/=]{1,15}(?:" + _GLUE + rb"|(?<=\\)[nrt])*+(?=-{4,5}[ ]?END[ ]))?"
)
_PEM_LAST_LINE = re.compile(rb"[ \t+>|#*\"'-]*[A-Za-z0-9+/]{1,15}={0,2}[\"',;\\ \t\r\n]*\Z")
_PEM_PROOF = re.compile(rb"[A-Za-z0-9+/=]{32}")


def secrets_in(raw: bytes) -> Iterator[Span]:
    """Every secret of a known form: start, end, kind. They may overlap; the order says nothing."""
    lower = raw.lower()
    yield from _tokens(raw)
    yield from _phrases(raw, lower)
    yield from _assignments(raw, lower)
    yield from _private_keys(raw)


def _tokens(raw: bytes) -> Iterator[Span]:
    runs, places = _long_runs(raw)
    if len(runs) < _SHORT and not _ANY_PREFIX.search(runs):
        return
    for token in _TOKENS:
        if token.prefix not in runs:
            continue
        for match in _token_pattern(token).finditer(runs):
            if not _FILLER.search(match[0]):
                at, start = places[bisect_right(places, (match.start(), len(raw))) - 1]
                start += match.start() - at
                yield start, start + len(match[0]), token.kind


def _long_runs(raw: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Only the runs of characters that tokens are made of, each with what stands before it.

    And where each piece begins: in the text returned, and in `raw`.
    """
    shape = raw.translate(_SHAPE) + b" "
    pieces: list[bytes] = []
    places: list[tuple[int, int]] = []
    size = done = 0
    start = shape.find(_RUN)
    while start >= 0:
        end = shape.index(b" ", start)
        first = max(start - _BEFORE, done)
        places.append((size, first))
        pieces.append(raw[first:end])
        size += end - first + 1
        done = end
        start = shape.find(_RUN, end)
    return b" ".join(pieces), places


def _phrases(raw: bytes, lower: bytes) -> Iterator[Span]:
    for kind, word, pattern in _COMPILED:
        if word not in lower:
            continue
        for place in _places(lower, word):
            match = pattern.match(raw, place)
            if match and _is_spelled_out(kind, match[match.lastindex or 0]):
                yield *match.span(match.lastindex or 0), kind


def _is_spelled_out(kind: str, secret: bytes) -> bool:
    if _FILLER.search(secret) if kind == "slack" else _is_harmless(secret):
        return False
    if kind == "url-password":
        return not _NAMED.search(secret) and not _LOWER_OR_NUMBER.fullmatch(secret)
    return len(set(secret)) >= 6


def _assignments(raw: bytes, lower: bytes) -> Iterator[Span]:
    for word in _NAMES:
        if word not in lower:
            continue
        for place in _places(lower, word):
            before = lower[max(place - 24, 0) : place]
            if before.endswith((b"public", b"publickey", _OF_A_RUN)) or (
                word == b"key" and not _KEY_OF.search(before)
            ):
                continue
            match = _ASSIGNED.match(raw, place + len(word))
            if match is None or _ABOUT.search(match["suffix"]):
                continue
            group = "bare" if match["bare"] else "quoted"
            loud = raw[place : place + len(word)].isupper()
            if _looks_random(match[group], strict=group == "bare" and not loud):
                if _HEX.match(match[group]) and word in (b"token", b"credential"):
                    continue
                start, end = match.span(group)
                rest = _REST.match(raw, end)
                yield start, rest.end() if rest else end, "assignment"


def _is_harmless(value: bytes) -> bool:
    return bool(_HARMLESS.match(value) or _COMPUTED.search(value) or _FILLER.search(value))


def _looks_random(value: bytes, *, strict: bool) -> bool:
    """Return whether a value is neither words nor code; `strict` where the place says little."""
    if strict and _SNAKE_CASE.match(value):
        return False
    if not _DIGIT.search(value) or len(set(value)) < 7:
        return False
    if _is_harmless(value) or _NAMED.search(value):
        return False
    return len(_CLASS_RUN.findall(value)) >= (0.35 if strict else 0.3) * len(value)


def _places(text: bytes, word: bytes) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _private_keys(raw: bytes) -> Iterator[Span]:
    """Private keys that have a body."""
    for start, body in _pem_begins(raw):
        body_end = pem_body_end(raw, body)
        if _PEM_PROOF.search(raw, body, body_end):
            end = PEM_END.match(raw, body_end)
            yield start, end.end() if end else body_end, "private-key"


def _pem_begins(raw: bytes) -> Iterator[tuple[int, int]]:
    for word in (b"PRIVATE KEY", b"Private-Lines"):
        if word not in raw:
            continue
        for place in _places(raw, word):
            begin = _PEM_BEGIN.search(raw, max(place - 64, 0), place + 48)
            if begin and begin.start() <= place < begin.end():
                yield begin.span()


def pem_body_end(raw: bytes, start: int) -> int:
    """Return where the body of a private key ends that starts, or goes on, at `start`."""
    match = _PEM_BODY.match(raw, start)
    return match.end() if match else start


def opens_private_key(raw: bytes) -> bool:
    """Return whether a text ends within a private key, or right after the line that begins one."""
    return any(pem_body_end(raw, body) == len(raw) for _, body in _pem_begins(raw))


def is_last_pem_line(raw: bytes) -> bool:
    """Return whether a line may be the short last one of a private key's body."""
    return _PEM_LAST_LINE.match(raw) is not None
