"""The one shape of every executable: parse, call once, print; and what it exits with.

stdout is the answer, stderr the talk. A failure with words prints them, a line a problem, each
behind the program's name; anything else is our bug: a traceback, and 70.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from agentorch import __version__
from agentorch.artifacts.decision_log import current_user
from agentorch.config.settings import SERVICE_USER, SYSTEM_STATE, Settings, load
from agentorch.core.errors import AgentorchError, Exit, Misconfigured, UnknownJob
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.atomic import DISK_TROUBLE
from agentorch.systemd.message_ids import Message

MOST_PROBLEMS = 100


class Program(click.Command):
    """A click command with our exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exits with the code of what went wrong."""
        open_standard_streams()
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except AgentorchError as problem:
            complain(problem)
            ctx.exit(problem.exit_code)
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise  # click's own
        except Exception as problem:  # noqa: BLE001  (the one place where our bugs end)
            ctx.exit(_report_unexpected(problem))
        return result


def _report_unexpected(problem: Exception) -> Exit:
    if isinstance(problem, OSError) and problem.errno in DISK_TROUBLE:
        print_line(f"{problem.filename or 'standard output'}: {problem.strerror}")
        # what could not be written would be tried again, and complained about, at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.TRY_AGAIN
    if isinstance(problem, PermissionError) and (owner := _another_owner(problem.filename)):
        people = " and ".join(dict.fromkeys(("root", owner)))
        print_line(f"{problem.filename}: {problem.strerror}: only {people} may change it")
        return Exit.USAGE
    if isinstance(problem, IsADirectoryError | NotADirectoryError):
        print_line(f"{problem.filename}: {problem.strerror}")
        return Exit.USAGE if isinstance(problem, IsADirectoryError) else Exit.CONFIGURATION
    import traceback  # noqa: PLC0415  (nobody else needs it)

    traceback.print_exc()
    return Exit.BUG


def _another_owner(path: object) -> str | None:
    """Return whose this is, or the nearest directory above it that can be seen; None where it is
    ours.

    Its group may read the system's state, and anybody may name a state that is somebody else's.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    place = os.path.abspath(os.fsdecode(path))
    while place != "/" and not os.path.lexists(place):
        place = os.path.dirname(place)
    uid = os.lstat(place).st_uid
    if uid == os.geteuid():
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name
        return str(uid)


def open_standard_streams() -> None:
    """Open /dev/null for a standard stream that is closed: the next file would get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # noqa: FBT003  (os's own)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115  (open to the end)


def program(**settings: Any) -> Callable[[Callable[..., Any]], Program]:
    """Make a function the command of an executable; its docstring is the help."""

    def make(function: Callable[..., Any]) -> Program:
        help_names = {"help_option_names": ["-h", "--help"]}
        versioned = click.version_option(__version__, message="%(version)s")(function)
        return click.command(cls=Program, context_settings=help_names, **settings)(versioned)

    return make


def print_line(line: str) -> None:
    """Print a line on stderr, behind the program's name."""
    click.echo(f"{program_name()}: {line}", err=True)


def program_name() -> str:
    """Return what this program is called in what it says."""
    context = click.get_current_context(silent=True)
    return "agentorch" if context is None else context.command_path.replace(" ", "-")


def complain(problem: AgentorchError) -> None:
    """Print each problem, a line on stderr; log a service's wrong configuration as entries."""
    lines = list(problem.problems[:MOST_PROBLEMS])
    if len(problem.problems) > MOST_PROBLEMS:
        lines.append(f"and {len(problem.problems) - MOST_PROBLEMS} more problems")
    for line in lines:
        is_entry = isinstance(problem, Misconfigured) and _stderr_is_journal()
        if not (is_entry and note(line, Message.MISCONFIGURED, "ERROR")):
            print_line(line)


def log_entry(text: str, message: Message, **fields: Any) -> None:
    """Print a line on stderr, and log an entry beside it; the entry alone where stderr is the
    journal.
    """
    taken = note(text, message, **fields)
    if not (taken and _stderr_is_journal()):
        print_line(f"{fields['job']}: {text}")


def note(text: str, message: Message, level: str = "INFO", **fields: Any) -> bool:
    """Log an entry beside what was printed; return False where no journald took it."""
    from agentorch.systemd import journal  # noqa: PLC0415  (most commands leave none)

    return journal.note(program_name(), text, message, level, **fields)


def _stderr_is_journal() -> bool:
    if "JOURNAL_STREAM" not in os.environ:  # on a terminal, by far the most often
        return False
    from agentorch.systemd.journal import stderr_is_journal  # noqa: PLC0415  (as above)

    return stderr_is_journal()


def print_json(document: Any) -> None:
    """Print a JSON object as one line on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False))


def load_settings() -> Settings:
    """Return the settings, after root has become the service user where one is installed."""
    settings = load()
    become_service_user(settings)
    return settings


def open_queue() -> Queue:
    """Return the queue of this configuration. Makes nothing."""
    return Queue(load_settings().roots)


def become_service_user(settings: Settings) -> None:
    """Let root act as the service user on the system's state: what it leaves is that user's."""
    if os.geteuid() != 0 or settings.state_directory != SYSTEM_STATE:
        return
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:  # not installed as a service: root's own state
        return
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


# ---- ids --------------------------------------------------------------------------------------


def with_ids(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `job_refs`: ids from arguments, `--job`, or one a line from stdin."""
    function = click.option("--job", "jobs", metavar="ID", multiple=True, help="The same as ID.")(
        function
    )
    return click.argument("job_refs", metavar="[ID]...", nargs=-1)(function)


def ids(job_refs: Sequence[str], jobs: Sequence[str]) -> list[str]:
    """Return the ids that a command was given; from stdin where it was given none."""
    given = [*job_refs, *jobs]
    if given:
        return given
    if sys.stdin.isatty():
        raise click.UsageError("give a job's id, or ids on standard input")
    # by bytes: in most locales text that is not UTF-8 is an exception
    lines = (line.decode(errors="surrogateescape") for line in sys.stdin.buffer)
    return [word for line in lines for word in line.split()[:1]]


def each(job_refs: Iterable[str], act: Callable[[str], object]) -> None:
    """Act on every id; print what is refused, and go on with the others.

    Exits with 2, as a decision that was refused does.
    """
    refused = False
    for job_ref in job_refs:
        try:
            act(job_ref)
        except Misconfigured:
            raise
        except AgentorchError as problem:
            if problem.exit_code not in (Exit.USAGE, UnknownJob.exit_code):
                raise
            refused = True
            complain(problem)
    if refused:
        click.get_current_context().exit(Exit.USAGE)


def redact_text(text: str, settings: Settings) -> str:
    """Return what somebody wrote, without the values that are secret here."""
    if not text.strip():
        return text
    from agentorch.attempt.place import secret_values  # noqa: PLC0415  (most decisions say nothing)
    from agentorch.redaction.redactor import Redactor  # noqa: PLC0415

    return Redactor(secret_values(settings)).redact(text)


def caller_fields() -> dict[str, Any]:
    """Return who runs this, as an entry carries it."""
    user = current_user()
    return {"who": user["name"], "uid": user["uid"]}
