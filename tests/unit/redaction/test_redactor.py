"""Secrets are found in every form they are written in; what only looks like one passes."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.redaction.redactor import WORTHLESS, Finding, LineRedactor, Redactor

# Every true key is put together here, so that no scanner finds one in this file.
_RANDOM = random.Random(20260102)
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALNUM = _UPPER + _UPPER.lower() + "0123456789"


def chars(count: int, alphabet: str = _ALNUM) -> str:
    """Random characters, the first three a letter of each case and a digit where there are."""
    first = "".join(char for char in "Qq7" if char in alphabet)
    return first + "".join(_RANDOM.choices(alphabet, k=count - len(first)))


HEX = "0123456789abcdef"
URLSAFE = _ALNUM + "_-"
B64 = _ALNUM + "+/"

TOKENS: list[tuple[str, str]] = [
    ("anthropic", "sk-" + "ant-api03-" + chars(93, URLSAFE) + "AA"),
    ("anthropic", "sk-" + "ant-oat01-" + chars(60, URLSAFE)),
    ("openai", "sk-" + chars(48)),
    ("openai", "sk-" + chars(32, HEX)),
    ("openai", "sk-" + "proj-" + chars(120, URLSAFE)),
    ("openai", "sk-" + "svcacct-" + chars(60, URLSAFE)),
    ("openai", "sk-" + "or-v1-" + chars(64, HEX)),
    *(("github", f"gh{kind}_" + chars(36)) for kind in "pousr"),
    ("github", "github_" + "pat_" + chars(22) + "_" + chars(59)),
    ("gitlab", "glp" + "at-" + chars(20, URLSAFE)),
    ("slack", "xo" + "xb-" + chars(12, "0123456789") + "-" + chars(24)),
    ("slack", "xo" + "xp-" + chars(12, "0123456789") + "-" + chars(24)),
    ("slack", "xap" + "p-1-A" + chars(10, _UPPER) + "-" + chars(64, HEX)),
    ("slack", "hooks.slack.com/services/" + "T00AA11BB/B22CC33DD/" + chars(24)),
    ("aws", "AK" + "IA" + chars(16, _UPPER + "234567")),
    ("aws", "AS" + "IA" + chars(16, _UPPER + "234567")),
    ("google", "AI" + "za" + chars(35, URLSAFE)),
    ("google", "GOC" + "SPX-" + chars(28, URLSAFE)),
    ("stripe", "k_" + "live_" + chars(24)),
    ("stripe", "wh" + "sec_" + chars(32)),
    ("npm", "np" + "m_" + chars(36)),
    ("pypi", "pyp" + "i-AgEIcHlwaS5vcmc" + chars(120, URLSAFE)),
    ("huggingface", "h" + "f_" + chars(34)),
    ("digitalocean", "do" + "p_v1_" + chars(64, HEX)),
    ("sendgrid", "S" + "G." + chars(22, URLSAFE) + "." + chars(43, URLSAFE)),
    ("twilio", "S" + "K" + chars(32, HEX)),
    ("jwt", "ey" + "J" + chars(33) + ".ey" + "J" + chars(80, URLSAFE) + "." + chars(43, URLSAFE)),
]
AROUND = ["{}", "KEY={}", '"{}"', "`{}`,", "({})", "+{}", "-  k: {}\r\n", "a\\n{}\\nb", "é{}é"]
AROUND += ["\x1b[31m{}\x1b[0m", "?k%3D{}&x", "https://x.y/{}/z", "<b>{}</b>", "x\u2028{}"]

PASSWORD = "Xk39" + "fjQz2pLw7"
SECRET = chars(40, B64)
PHRASES: list[tuple[str, str, str]] = [
    ("azure", "AccountName=x;AccountKey={};EndpointSuffix=core", chars(86, B64) + "=="),
    ("azure", "SharedAccessKeyName=a;SharedAccessKey={}", chars(43, B64) + "="),
    ("authorization", "Authorization: Bearer {}", chars(32)),
    ("authorization", "-H 'authorization: bearer {}'", chars(32, URLSAFE)),
    ("authorization", '{{"Authorization": "Bearer {}"}}', chars(40)),
    ("authorization", "Authorization: Basic {}", base64.b64encode(b"ann:Xk39fjQz").decode()),
    ("url-password", "postgres://app:{}@db.example.org:5432/x", PASSWORD),
    ("url-password", "redis://:{}@localhost", PASSWORD),
    ("url-password", "https://x-access-token:{}@git.example.org/r.git", chars(20)),
    ("assignment", "aws_secret_access_key = {}", SECRET),
    ("assignment", "AWS_SECRET_ACCESS_KEY={}", SECRET),
    ("assignment", "DB_PASSWORD={}", PASSWORD),
    ("assignment", 'password: "{}"', PASSWORD),
    ("assignment", "  db_password: '{}'", PASSWORD),
    ("assignment", 'API_KEY: str = "{}"', PASSWORD),
    ("assignment", 'const apiKey = "{}";', chars(32)),
    ("assignment", '"client_secret": "{}"', chars(32)),
    ("assignment", '{{"text": "export API_TOKEN=\\"{}\\"\\n"}}', chars(24)),
    ("assignment", "config['secret_key'] = '{}'", chars(50)),
    ("assignment", "SECRET_KEY={}", chars(64, HEX)),
    ("assignment", "password: {}", PASSWORD),
    ("assignment", "<password>{}</password>", PASSWORD),
    ("assignment", "token => '{}',", chars(24)),
]

FALSE = [
    # names, not values
    "ANTHROPIC_API_KEY",
    'os.environ["OPENAI_API_KEY"]',
    "api_key=None",
    "API_KEY=$API_KEY",
    "export OPENAI_API_KEY=${OPENAI_API_KEY:-}",
    "token: ${{ secrets.GITHUB_TOKEN }}",
    "def login(user: str, password: str) -> None:",
    "password = getpass.getpass()",
    'api_key = os.environ.get("SERVICE_API_KEY_2")',
    "const token = process.env.NPM_TOKEN2;",
    "secret_name: my-app-secret-1",
    "token = tokenizer.next_token2(stream3)",
    "password = utf8_to_utf16_dup(x)",
    "key: value",
    "max_tokens: 4096, tokens_in=12345678901234567890",
    'if "-----BEGIN PRIVATE KEY-----" in text:\n    raise ValueError(text)',
    "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n" + chars(64) + "\n-----END PUBLIC KEY-----",
    "publicKeyToken='1fc8b3b9a1e18e3b'",
    # ids and hashes
    "123e4567-e89b-12d3-a456-426614174000",
    "token: 123e4567-e89b-12d3-a456-426614174000",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "token=9fceb02d0ae598e95dc970b74767f19372d61af8",
    '"integrity": "sha512-' + chars(86, B64) + '=="',
    '"_integrity_token": "sha512-' + chars(86, B64) + '=="',
    "docker://alpine:3.18.4@sha256:9f86d081884c7d659a2feaa0c55ad015",
    '"session_id":"3d2f0f5e-1111-4222-8333-aabbccddeeff"',
    "0196f3a27c7b7d0f8f7e3c2b1a09f8e7",
    # placeholders
    "sk-...",
    "sk-ant-...",
    "sk-ant-api03-your-key-goes-here-0000",
    "ANTHROPIC_API_KEY=sk-ant-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "api_key: <your-key>",
    'password: "changeme"',
    'password: "change-me-please-1"',
    "DB_PASSWORD=example-password-123",
    "AK" + "IAIOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJal" + "rXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "postgres://user:password@localhost/db",
    "postgres://user:${DB_PASSWORD}@localhost/db",
    "https://user:<token>@example.org",
    "http://localhost:8080@x",
    "Authorization: Bearer $TOKEN",
    "Authorization: Bearer <token>",
    "Authorization: Bearer {token}",
    "token: dev-token",
    # words and pictures
    "a-task-with-a-rather-long-slug-2024-01-01",
    "risk-assessmentframeworkdocumentation",
    "sk-fading-circle-with-twelve-bouncing-dots",
    "this_is_a_very_long_identifier_of_a_test_with_2_numbers",
    "VeryLongClassNameFactoryBeanProxyImplementationV2",
    "npm_config_registry_of_the_second_kind_and_third",
    "hf_hub_download_with_retries_and_more_words",
    "MASK0123456789abcdef",
    "data:image/png;base64," + chars(400, B64),
    'token="data:image/png;base64,' + chars(100, B64) + '"',
    "password_file=/run/secrets/db-password-1",
    "AUTH_TOKEN_URL=https://login.example.org/oauth2/v2.0/token1",
]


def kinds(text: str, redactor: Redactor | None = None) -> list[str]:
    return [finding.kind for finding in (redactor or Redactor()).find(text)]


@pytest.mark.parametrize(("kind", "secret"), TOKENS, ids=[f"{t[0]}-{len(t[1])}" for t in TOKENS])
@pytest.mark.parametrize("around", AROUND)
def test_a_key_is_found_wherever_it_stands(kind: str, secret: str, around: str) -> None:
    text = around.format(secret)
    assert kinds(text) == [kind]
    assert secret not in Redactor().redact(text)
    assert f"[redacted:{kind}]" in Redactor().redact(text)


@pytest.mark.parametrize(("kind", "around", "secret"), PHRASES, ids=[p[1] for p in PHRASES])
def test_a_secret_is_found_by_what_stands_around_it(kind: str, around: str, secret: str) -> None:
    assert Redactor().redact(around.format(secret)) == around.format(f"[redacted:{kind}]")


@pytest.mark.parametrize("text", FALSE)
def test_what_only_looks_like_a_secret_passes(text: str) -> None:
    assert kinds(text) == []
    assert Redactor().redact(text) == text


def test_findings_are_places_in_the_text() -> None:
    secret = TOKENS[0][1]
    assert Redactor().find(f"日本 {secret} x") == [Finding("anthropic", 3, 3 + len(secret))]


# ---- values of the environment ----------------------------------------------------------------

VALUE = "correct horse/battery+staple=é\"'\\"


def test_a_passed_value_is_found_in_every_spelling() -> None:
    redactor = Redactor([VALUE])
    for spelled in (
        VALUE,
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
        re.sub("%..", lambda match: match[0].lower(), quote(VALUE, safe="")),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
    ):
        assert redactor.redact(f"a {spelled} b") in (
            "a [redacted:value] b",
            'a "[redacted:value]" b',
        )


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("after", ["", "x", "xy", ":more"])
def test_a_passed_value_is_found_within_base64(before: str, after: str) -> None:
    raw = (before + VALUE + after).encode()
    redactor = Redactor([VALUE])
    for encoded in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        assert kinds(encoded, redactor) == ["value"]
        assert len(redactor.redact(encoded)) <= len("[redacted:value]") + 16


def test_short_values_are_ignored() -> None:
    assert kinds("abcdefg", Redactor(["abcdefg", "", " " * 9])) == []
    assert kinds("abcdefgh", Redactor(["abcdefgh"])) == ["value"]


def test_the_lines_of_a_value_are_values() -> None:
    redactor = Redactor(["first line of a value\nshort\nsecond line of a value\n"])
    assert redactor.redact("x second line of a value") == "x [redacted:value]"
    assert redactor.redact("short") == "short"


def test_nothing_shows_the_values() -> None:
    redactor = Redactor([VALUE])
    assert repr(redactor) == "Redactor()"
    assert VALUE not in repr(LineRedactor(redactor))
    assert repr(redactor.find(VALUE)) == f"[Finding(kind='value', start=0, end={len(VALUE)})]"


# ---- private keys -----------------------------------------------------------------------------

PEM_KINDS = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "]


def pem(kind: str = "RSA ", lines: int = 5) -> str:
    block = " BLOCK" if kind == "PGP " else ""
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n" if kind == "RSA " else ""
    body = "\n".join(chars(64, B64) for _ in range(lines))
    name = kind + "PRIVATE " + "KEY" + block
    return f"-----BEGIN {name}-----\n{headers}{body}\nAb3=\n-----END {name}-----"


@pytest.mark.parametrize("kind", PEM_KINDS)
def test_a_private_key_of_any_kind_is_one_finding(kind: str) -> None:
    assert Redactor().redact(f"a\n{pem(kind)}\nb\n") == "a\n[redacted:private-key]\nb\n"


def test_a_private_key_in_other_clothes() -> None:
    key = pem("")
    redact = Redactor().redact
    assert redact(json.dumps({"key": key})) == '{"key": "[redacted:private-key]"}'
    assert redact("    " + key.replace("\n", "\n    ")) == "    [redacted:private-key]"
    assert redact(key.replace("\n", "\r\n")) == "[redacted:private-key]"
    assert redact(key.replace("\n", " ")) == "[redacted:private-key]"
    assert redact("> " + key.replace("\n", "\n> ")) == "> [redacted:private-key]"
    quoted = "k = (\n" + "".join(f'    "{line}\\n"\n' for line in key.split("\n")) + ")\n"
    assert kinds(quoted) == ["private-key"]
    assert not any(line in redact(quoted) for line in key.split("\n"))
    ssh2 = (
        key.replace("-----", "----").replace("---BEGIN ", "--- BEGIN ").replace("KEY--", "KEY --")
    )
    assert kinds(ssh2) == ["private-key"]
    putty = "PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 2\n" + chars(64, B64) + "\nAb3=\n"
    assert kinds(putty) == ["private-key"]


def test_a_private_key_that_was_cut_off() -> None:
    cut = pem().rpartition("\n")[0]
    assert Redactor().redact(cut[:-5] + "\n") == "[redacted:private-key]"
    assert Redactor().redact(cut[:300]).startswith("[redacted:private-key]")


@pytest.mark.parametrize("prefix", ["+", "-", " "])
def test_a_private_key_in_a_diff(prefix: str) -> None:
    body = "".join(f"{prefix}{line}\n" for line in pem().split("\n"))
    patch = f"--- a/k\n+++ b/k\n@@ -1,9 +1,9 @@\n x\n{body} y\n"
    assert Redactor().redact(patch).endswith(f"\n x\n{prefix}[redacted:private-key]\n y\n")


# ---- streams ----------------------------------------------------------------------------------


def by_line(text: str, values: tuple[str, ...] = ()) -> tuple[str, dict[str, int]]:
    lines = LineRedactor(Redactor(values))
    shown = "".join(lines.line(line) for line in text.splitlines(keepends=True))
    return shown, dict(lines.found)


def test_a_stream_is_redacted_line_by_line() -> None:
    secret = TOKENS[0][1]
    shown, found = by_line(f"a {secret}\nb\nc hunter2hunter2 d", ("hunter2hunter2",))
    assert shown == "a [redacted:anthropic]\nb\nc [redacted:value] d"
    assert found == {"anthropic": 1, "value": 1}


@pytest.mark.parametrize("kind", PEM_KINDS)
@pytest.mark.parametrize("prefix", ["", "+", "    ", "> "])
def test_the_body_of_a_private_key_in_a_stream(kind: str, prefix: str) -> None:
    key = pem(kind)
    text = "before\n" + "".join(f"{prefix}{line}\n" for line in key.split("\n")) + "after\n"
    shown, found = by_line(text)
    assert found == {"private-key": 1}
    assert shown.startswith(f"before\n{prefix}-----BEGIN ")
    assert shown.endswith("-----\nafter\n")
    assert not any(line in shown for line in key.split("\n") if line and "-----" not in line)


def test_a_stream_that_only_names_a_private_key() -> None:
    text = 'if "-----BEGIN PRIVATE KEY-----" in text:\n    return True\n\nreturned = word\n'
    assert by_line(text) == (text, {})


def test_a_stream_cut_within_a_private_key_goes_on() -> None:
    head = pem().rpartition("\n")[0]
    shown, found = by_line(head + "\nThe build failed.\nword\n")
    assert shown.endswith("\nThe build failed.\nword\n")
    assert found == {"private-key": 1}


# ---- properties -------------------------------------------------------------------------------

VALUES = ("hunter2hunter2", "[redacted:x]abc", "redacted", "sk-ant-api", "aaaaaaaa")
PIECES = st.sampled_from(
    [
        *(secret for _, secret in TOKENS),
        *(secret[: len(secret) // 2] for _, secret in TOKENS),
        *(around.format(secret) for _, around, secret in PHRASES),
        *VALUES,
        *FALSE,
        pem(),
        pem()[:200],
        pem()[60:],
        *("[redacted:value]", "[redacted:", "]", "\n", " ", '"', "=", "\\n", "\0", "A", "a1", "-"),
        *("password=", "token: ", "Bearer ", "sk-", "AKIA", "://u:", "@h", "-----", "日本"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join)


@given(TEXTS)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    redactor = Redactor(VALUES)
    once = redactor.redact(text)
    assert redactor.redact(once) == once
    assert redactor.find(once) == []


@given(TEXTS)
def test_findings_are_in_order_and_apart(text: str) -> None:
    findings = Redactor(VALUES).find(text)
    places = [place for finding in findings for place in (finding.start, finding.end)]
    assert places == sorted(places)
    assert all(finding.start < finding.end <= len(text) for finding in findings)


@given(TEXTS, st.sampled_from([secret for _, secret in TOKENS]), TEXTS)
def test_a_key_between_other_things_never_stays(before: str, secret: str, after: str) -> None:
    start, end = len(before) + 1, len(before) + 1 + len(secret)
    findings = Redactor(VALUES).find(f"{before} {secret} {after}")
    assert any(finding.start <= start and end <= finding.end for finding in findings)


@given(st.text(min_size=8).filter(lambda value: "\0" not in value), TEXTS, TEXTS)
def test_a_passed_value_never_stays(value: str, before: str, after: str) -> None:
    if value.strip() and "[redacted:" not in before + value + after:
        shown = Redactor([value]).redact(before + value + after)
        assert value not in re.sub(r"\[redacted:[a-z-]+\]", "\0", shown)


@given(TEXTS)
def test_a_stream_keeps_its_lines(text: str) -> None:
    lines = text.split("\n")
    redactor = LineRedactor(Redactor(VALUES))
    shown = [redactor.line(line) for line in lines]
    assert all("\n" not in line for line in shown)
    assert (redactor.found.total() > 0) == (shown != lines)


HOSTILE = [
    *(
        "a",
        "A",
        "-",
        "=",
        "sk-",
        "sk-ant-",
        "eyJ",
        "eyJ.",
        "SG.",
        "AKIA",
        "token=",
        "token:",
        "pwd=",
    ),
    *(
        "api_key",
        'secret="',
        "bearer ",
        "bearer 1",
        "authorization: basic ",
        "://",
        "://a:",
        "://a:b@",
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAAAA", "Private-Lines: 1\n"),
    *(
        "PRIVATE KEY",
        "[redacted:",
        "[redacted:a]",
        "x1X2" * 6 + " ",
        "password=Xk39fjQz2p%s",
        "\\n",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_line_takes_more_than_linear_time(piece: str) -> None:
    """A quadratic search of 1 MB would take minutes; the bound leaves room for a slow machine."""
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    Redactor(["hunter2hunter2"]).redact(text)
    LineRedactor(Redactor()).line(text)
    assert time.process_time() - start < 20


def test_a_tail_that_lost_a_keys_beginning_loses_the_rest_of_it_too() -> None:
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n" * 3
    tail = f"{body}-----END {'PRIVATE'} KEY-----\nand then\n"
    assert Redactor().redact_tail(tail) == "[redacted:private-key]\nand then\n"
    assert Redactor().redact_tail("nothing of the kind\n") == "nothing of the kind\n"


def test_a_worthless_token_is_redacted_and_told_from_a_secret() -> None:
    redactor = Redactor(["a-real-secret-value"], worthless=["tOkEn-9f86d081884c7d659a2feaa0"])
    text = "ANTHROPIC_API_KEY=tOkEn-9f86d081884c7d659a2feaa0 and a-real-secret-value"
    assert [finding.kind for finding in redactor.find(text)] == [WORTHLESS, "value"]
    assert redactor.redact(text) == f"ANTHROPIC_API_KEY=[redacted:{WORTHLESS}] and [redacted:value]"


def test_a_token_between_the_processes_of_a_cli_is_no_secret() -> None:
    value = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi"
    assert not Redactor().find(f"CLAUDE_CODE_MESSAGING_TOKEN={value}")
    assert Redactor().find(f"CODE_MESSAGING_TOKEN={value}")
