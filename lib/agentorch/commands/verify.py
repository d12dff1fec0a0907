"""agentorch-verify: whether what jobs left is as it was when they ended."""

from __future__ import annotations

import click

from agentorch.artifacts import manifest
from agentorch.artifacts.manifest import Verified
from agentorch.commands.base import ids, load_settings, print_json, program, with_ids
from agentorch.config.settings import Settings
from agentorch.core.errors import Exit, UnknownJob
from agentorch.core.text import printable
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import resolve


@program()
@with_ids
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each job.")
def main(job_refs: tuple[str, ...], jobs: tuple[str, ...], *, as_json: bool) -> None:
    """Names what of jobs was altered, is missing or was added since they ended.

    A line for each, behind the job's id. Exits with 1 where anything is not as it was.
    """
    settings = load_settings()
    queue = Queue(settings.roots)
    sound = [_verify(settings, queue, job_ref, as_json=as_json) for job_ref in ids(job_refs, jobs)]
    if not all(sound):
        click.get_current_context().exit(Exit.NEGATIVE)


def _verify(settings: Settings, queue: Queue, job_ref: str, *, as_json: bool) -> bool:
    job_id = resolve(queue, job_ref)
    paths = queue.roots.artifacts(job_id)
    if not manifest.is_due(paths):
        raise UnknownJob(f"job {job_id} has not ended: its record is written when it does")
    verified = manifest.verify(paths, settings.allowed_signers)
    if as_json:
        _answer_json(job_id, verified)
    else:
        _answer_lines(job_id, verified)
    return not verified.findings


def _answer_json(job_id: str, verified: Verified) -> None:
    findings = [
        {"what": one.word, "path": one.path, "reason": one.reason} for one in verified.findings
    ]
    whole = not findings
    print_json({"job_id": job_id, "intact": whole, "signer": verified.signer, "findings": findings})


def _answer_lines(job_id: str, verified: Verified) -> None:
    for one in verified.findings:
        click.echo(f"{job_id} {printable(str(one))}")
    if not verified.findings:
        signed = f", signed by {printable(verified.signer)}" if verified.signer else ""
        click.echo(f"{job_id} intact{signed}")
