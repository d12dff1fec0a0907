"""GET /jobs/{id}/artifacts/PATH: what a job left, as it lies on the disk.

Agents wrote much of it: no symlink is followed, only regular files are sent, and nothing is sent
as something that a browser would run. Names that begin with a dot are nobody's business.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

from agentorch.storage import beneath
from agentorch.webhook.media_types import type_of
from agentorch.webhook.responses import Answer, Refusal, problem


def artifact(directory: Path, path: str, job_id: str) -> Answer:
    """A file below a job's artifacts. Raises Refusal (404) where none is to be had."""
    file = None
    if is_shown(path):
        try:
            file = beneath.open_file(directory, path)
        except beneath.NotBeneath:
            file = None
    if file is None:
        raise Refusal(problem(HTTPStatus.NOT_FOUND, "there is no such artifact", job_id=job_id))
    content_type, headers = type_of(path)
    return Answer(
        HTTPStatus.OK,
        content_type=content_type,
        headers=headers,
        file=file,
        size_bytes=os.fstat(file.fileno()).st_size,
        job_id=job_id,
    )


def is_shown(path: str) -> bool:
    """Whether a path could be that of an artifact. Pure."""
    return path.isprintable() and not any(part.startswith(".") for part in path.split("/"))
