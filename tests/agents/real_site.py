"""The real CLIs under the real programs: a repository, a state directory, a model double.

As root everything runs where it is. As an ordinary user the checkout and the CLIs are seen through
a mount namespace, wherever they lie, and the programs run on the system's Python, as installed
ones do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import clis

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
NOBODY = 65534
KEY = "sk-ant-" + "canary-9f86d081884c7d659a2feaa0c55ad015"

ENTER = """
mount -t tmpfs none /mnt && mkdir /mnt/agentorch /mnt/clis &&
mount --bind "$1" /mnt/agentorch && mount --bind "$2" /mnt/clis && shift 2 &&
cd "$1" && shift && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


class Site:
    """A place to run steps and jobs by the real CLIs, as root or as an ordinary user."""

    def __init__(self, model_url: str, *, ordinary: bool = False) -> None:
        self.ordinary = ordinary
        # not below /tmp: an agent's HOME must not lie where its TMPDIR is
        self.top = Path(tempfile.mkdtemp(prefix="agentorch-test-", dir="/var/tmp"))
        self.repository = self.top / "repository"
        self.repository.mkdir()
        self.write("README", "hello\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", ".")
        self.git("commit", "-qm", "first")
        programs = Path("/mnt/clis/bin") if ordinary else clis.programs()
        self.environment = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.top),
            "AGENTORCH_STATE_DIR": str(self.top / "state"),
            "AGENTORCH_CONFIG_DIR": str(self.top / "etc"),
            "ENABLE_REAL_CLI": "1",
            "ALLOWED_BINARIES": "opencode,claude,codex,kimi,python,sh",
            # its own default has no price that is known
            "AGENT_MODELS": "codex=gpt-5.5",
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_API_KEY": KEY,
            "MOONSHOT_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": model_url,
            "OPENAI_BASE_URL": f"{model_url}/v1",
            "MOONSHOT_BASE_URL": f"{model_url}/v1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": "/mnt/agentorch/lib" if ordinary else str(ROOT / "lib"),
        }
        self._own()

    def write(self, path: str, text: str) -> None:
        """A file of the repository."""
        (self.repository / path).parent.mkdir(parents=True, exist_ok=True)
        (self.repository / path).write_text(text)

    def git(self, *arguments: str) -> str:
        """git in the repository."""
        argv = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
        done = subprocess.run(argv, cwd=self.repository, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self) -> None:
        """Everything that is in the repository, committed."""
        self.git("add", "-A", "-f")
        self.git("commit", "-qm", "more")
        self._own()

    def argv(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of our programs, as this site's user."""
        if not self.ordinary:
            return [sys.executable, str(ROOT / "bin" / f"agentorch-{name}"), *arguments]
        prefix = str(clis.programs().parent)
        enter = ["unshare", "-m", "sh", "-ec", ENTER, "sh", str(ROOT), prefix]
        program = f"/mnt/agentorch/bin/agentorch-{name}"
        return [*enter, str(self.repository), "/usr/bin/python3", program, *arguments]

    def run(
        self, name: str, *arguments: str, given: str = "", code: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of ours to its end."""
        done = subprocess.run(
            self.argv(name, *arguments),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            cwd=self.repository,
            env=self.environment | variables,
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def job(self, steps: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """Runs a job to its end; its status document."""
        document = {"goal": "say hello twice", "steps": list(steps), **fields}
        job_id = self.run("submit", "-", given=json.dumps(document)).stdout.strip()
        self.run("runner", "--drain")
        found: dict[str, Any] = json.loads(self.run("status", job_id).stdout)
        return found

    def step(self, agent: str, role: str = "implementer", **fields: Any) -> dict[str, Any]:
        """Runs a job of one step to its end, or until it is parked; the step's result."""
        step = {
            "step_id": "one",
            "agent": agent,
            "role": role,
            "prompt": "Do as you are told.",
            "max_retries": 0,
            "timeout_sec": 60,
        }
        job_id = self.job([{**step, **fields}])["job_id"]
        path = self.artifacts(job_id) / "steps" / "one" / "result.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def artifacts(self, job_id: str) -> Path:
        """A job's artifact directory."""
        return self.top / "state" / "artifacts" / job_id

    def work(self, job_id: str) -> Path:
        """A job's work tree."""
        return self.top / "state" / "workspaces" / job_id / "work"

    def close(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.top, ignore_errors=True)

    def _own(self) -> None:
        if self.ordinary:
            for directory, _, names in os.walk(self.top):
                for path in (directory, *(os.path.join(directory, name) for name in names)):
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
