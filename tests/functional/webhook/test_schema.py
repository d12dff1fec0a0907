"""schemathesis against the OpenAPI document: what it makes of it, the webhook answers as it says.

It has a virtual environment of its own under the user's cache: it brings a plugin for pytest, and
versions of what the other tests use.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentorch.webhook.routes import ROUTES
from tests.support.webhook import BOTH, ROOT, Door

CACHE = Path.home() / ".cache/agentorch-test"
VERSION = "4.32.5"
# Requests for each operation; the same every time.
EXAMPLES = 15
# It stops at what it finds first.
SEEKING_EXAMPLES = 100
# Not that every valid document is taken: agents and projects are the server's.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)


@pytest.fixture(scope="module")
def program() -> Path:
    """schemathesis, installed once; skips where pip can't."""
    made = CACHE / f"schemathesis-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{made.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / ".whole").exists():
            _install(made)
    return made / "bin/schemathesis"


def _install(made: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(made)], check=True)
    pip = [str(made / "bin/python"), "-m", "pip", "install", "-qq"]
    done = subprocess.run(
        [*pip, f"schemathesis=={VERSION}"], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"schemathesis can't be installed: {done.stderr[-300:]}; not proved here")
    (made / ".whole").touch()


def schemathesis_argv(
    program: Path, port: int, schema: Path, examples: int = EXAMPLES
) -> list[str]:
    return [
        str(program),
        "run",
        str(schema),
        *("--url", f"http://127.0.0.1:{port}"),
        *("--header", f"Authorization: Bearer {BOTH}"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples)),
        *("--seed", "1", "--generation-deterministic"),
        *("--checks", ",".join(CHECKS)),
        *("--warnings", "off"),
        "--continue-on-failure",
        "--no-color",
    ]


def test_the_answers_are_those_of_the_document(program: Path, door: Door, tmp_path: Path) -> None:
    argv = schemathesis_argv(program, door.port, ROOT / "contracts/openapi.json")
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"Tested: {len(ROUTES)}" in done.stdout, done.stdout[-4000:]


def test_it_would_see_an_answer_that_is_not_there(
    program: Path, door: Door, tmp_path: Path
) -> None:
    """The suite can fail: a document that knows of no 404 is found out."""
    contracts = shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    schema = contracts / "openapi.json"
    text = schema.read_text()
    assert '"404"' in text
    schema.write_text(text.replace('"404"', '"418"'))
    argv = [*schemathesis_argv(program, door.port, schema, SEEKING_EXAMPLES), "--max-failures", "1"]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Undocumented status code" in done.stdout, done.stdout
