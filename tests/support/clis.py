"""The vendors' command line agents, from npm, pinned, kept in the user's cache.

The native programs are called directly: the packages' scripts are wrappers that need node, and are
not run. `bin/` has a link for each, as a PATH has; kimi is JavaScript for a newer node than systems
have, and gets one of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path.home() / ".cache/agentorch-test"
NODE = {"x86_64": "x64", "aarch64": "arm64"}.get(os.uname().machine, "x64")
PACKAGES = {
    "@anthropic-ai/claude-code": "2.1.330",
    "@openai/codex": "0.169.0",
    "opencode-ai": "1.18.33",
    "@moonshot-ai/kimi-code": "2.1.0",
    f"node-linux-{NODE}": "24.9.0",
}
# Below node_modules; the first that is there.
PROGRAMS = {
    "claude": "@anthropic-ai/claude-code-linux-*/claude",
    "codex": "@openai/codex-linux-*/vendor/*/bin/codex",
    "opencode": "opencode-linux-*64/bin/opencode",
}
SCRIPTS = {
    "kimi": f"""#!/bin/sh
modules=${{0%/*}}/../node_modules
exec "$modules/node-linux-{NODE}/bin/node" "$modules/@moonshot-ai/kimi-code/dist/main.mjs" "$@"
""",
}
INSTALL_S = 900


def missing() -> str | None:
    """Why the agents can't be had here; None where they can."""
    return None if shutil.which("npm") else "the agents come from npm: install the package npm"


def place() -> Path:
    """Where these versions are, once they are installed."""
    name = hashlib.sha256(json.dumps(PACKAGES, sort_keys=True).encode()).hexdigest()[:12]
    return CACHE / f"clis-{name}"


def programs() -> Path:
    """The directory with a link to each agent; makes it where it is not there."""
    top = place()
    CACHE.mkdir(parents=True, exist_ok=True)
    with top.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (top / "bin").is_dir():
            _install(top)
    return top / "bin"


def _install(top: Path) -> None:
    partial = top.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    subprocess.run(
        install_argv(partial), check=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL, cwd=partial
    )
    links = partial / "links"
    links.mkdir()
    for name, pattern in PROGRAMS.items():
        found = sorted((partial / "node_modules").glob(pattern))
        (links / name).symlink_to(Path("..") / found[0].relative_to(partial))
    for name, script in SCRIPTS.items():
        (links / name).write_text(script)
        (links / name).chmod(0o755)
    os.chmod(partial, 0o755)
    shutil.rmtree(top, ignore_errors=True)
    partial.rename(top)
    # last: what has bin/ is whole
    (top / "links").rename(top / "bin")


def install_argv(prefix: Path) -> tuple[str, ...]:
    """npm's command line; none of the packages' own scripts is run."""
    return (
        *("npm", "install"),
        *("--prefix", str(prefix)),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        *("--loglevel", "error"),
        *(f"{name}@{version}" for name, version in PACKAGES.items()),
    )


if __name__ == "__main__":
    print(programs())  # noqa: T201  (a program)
