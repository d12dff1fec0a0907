"""GET /jobs/{id}/artifacts/PATH: the artifacts of a job, as they are on the disk.

Agents wrote many of them: so no symlink is followed, only regular files are sent, and none is sent
with a type that a browser would run. Names that begin with a dot are internal and not sent.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

from agentorch.storage import beneath
from agentorch.webhook.media_types import media_type
from agentorch.webhook.responses import Answer, Refusal, problem


def artifact_answer(directory: Path, path: str, job_id: str) -> Answer:
    """Return the answer with a file of a job's artifacts. Raises Refusal (404) without one."""
    file = None
    if is_public(path):
        try:
            file = beneath.open_file(directory, path)
        except beneath.NotBeneath:
            file = None
    if file is None:
        raise Refusal(problem(HTTPStatus.NOT_FOUND, "there is no such artifact", job_id=job_id))
    content_type, headers = media_type(path)
    return Answer(
        HTTPStatus.OK,
        content_type=content_type,
        headers=headers,
        file=file,
        size_bytes=os.fstat(file.fileno()).st_size,
        job_id=job_id,
    )


def is_public(path: str) -> bool:
    """Return whether a path could be that of an artifact. Pure."""
    return path.isprintable() and not any(part.startswith(".") for part in path.split("/"))
