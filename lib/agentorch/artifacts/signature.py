"""Signatures of files by SSH keys: `ssh-keygen -Y` (ssh-keygen(1), PROTOCOL.sshsig of OpenSSH).

Nothing is asked on a terminal: a key with a passphrase is of no use to a service.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMESPACE = "agentorch"
TIMEOUT_S = 20
_GOOD = re.compile(r'^Good "[^"]+" signature (?:for (?P<name>.+) )?with (?P<key>.+)$', re.MULTILINE)


class NotSigned(Exception):
    """There is no signature, or none that holds; str() says why."""


def sign_argv(key: Path) -> list[str]:
    """Signs standard input; the signature is the answer. Pure."""
    return ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE]


def principals_argv(allowed: Path, signature: Path) -> list[str]:
    """Return whose key a signature was made with, of those that are allowed to. Pure."""
    return ["ssh-keygen", "-Y", "find-principals", "-f", str(allowed), "-s", str(signature)]


def verify_argv(allowed: Path, signature: Path, name: str) -> list[str]:
    """Return whether standard input was signed by somebody who is allowed to. Pure."""
    return [
        *("ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", name),
        *("-n", NAMESPACE, "-s", str(signature)),
    ]


def fits_argv(signature: Path) -> list[str]:
    """Return whether standard input was signed by anybody at all. Pure."""
    return ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)]


def sign(key: Path, content: bytes) -> bytes:
    """Return the signature of `content`. Raises NotSigned."""
    signature = _answer(sign_argv(key), content)
    if not signature.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise NotSigned(f"{key}: ssh-keygen gave no signature")
    return signature


def signer(content: bytes, signature: bytes, allowed: Path | None) -> str:
    """Return who signed `content`, as ssh-keygen names them and the key. Raises NotSigned.

    Without `allowed`, a file of who may sign (ssh-keygen(1), ALLOWED SIGNERS), anybody may.
    """
    with tempfile.NamedTemporaryFile(prefix="agentorch-") as file:
        file.write(signature)
        file.flush()
        path = Path(file.name)
        if allowed is None:
            return _signer(_answer(fits_argv(path), content))
        names = _answer(principals_argv(allowed, path), b"").decode("utf-8", "replace")
        name = names.partition("\n")[0]
        return _signer(_answer(verify_argv(allowed, path, name), content))


def _signer(answer: bytes) -> str:
    match = _GOOD.search(answer.decode("utf-8", "replace"))
    if match is None:
        raise NotSigned("ssh-keygen does not say who signed it")
    return f"{match['name']} ({match['key']})" if match["name"] else match["key"]


def _answer(argv: Sequence[str], given: bytes) -> bytes:
    """Return what ssh-keygen prints. Raises NotSigned, with what it says, where it fails."""
    try:
        done = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            start_new_session=True,  # no terminal to ask for a passphrase on
        )
    except OSError as problem:
        raise NotSigned(f"{argv[0]}: {problem.strerror}: apt install openssh-client") from problem
    except subprocess.TimeoutExpired as problem:
        raise NotSigned(f"{argv[0]} was not done in {TIMEOUT_S} s") from problem
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise NotSigned(lines[0].strip() if lines else f"{argv[0]} ended with {done.returncode}")
    return done.stdout
