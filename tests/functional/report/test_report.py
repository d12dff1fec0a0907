"""agentorch-report: pages of real jobs, of hostile ones, and of ones with missing files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from agentorch.core.states import State
from agentorch.decisions.decide import approve
from agentorch.jobqueue.jobqueue import Queue
from agentorch.report.waits import AttemptRun, Course
from agentorch.report.waits import waits as waits_of
from agentorch.storage.paths import Roots
from tests.support.html_pages import (
    elements,
    markup,
    name,
    parsed,
    policy_of,
    text_of,
    words_of,
    written,
)
from tests.support.installation import Installation, step

CHANGES = "echo 'mended <b>&amp;</b>'; echo more >> README; echo 'привет' > 'новый файл'"
HOSTILE = (
    "</style></title></textarea></pre></svg><script>alert(1)</script><img src=x onerror=alert(1)>"
    '"\' onload=alert(1) x="<svg/onload=alert(1)><!-- ]]> {{ 70+7 }} {% raw %} &lt;b&gt; &#x202e;'
    "<a href=javascript:alert(1)>x</a><base href=//evil.example><meta http-equiv=refresh content=0>"
)
UNSEEN = "a\x1b[31mred\x00\x07\u202egnp.exe\u2066\u200b\ufeff\U000e0041\ufffe\x85z"


def page_of(here: Installation, job_id: str) -> str:
    return here.run("report", job_id).stdout


def ended(here: Installation, *steps: dict[str, object], **fields: object) -> str:
    job_id = here.submit(
        *(steps or (step("one", CHANGES),)), workdir=str(here.repository), **fields
    )
    here.drain()
    return job_id


# ---- what is on it ----------------------------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_a_page_tells_the_whole_story_of_a_job(here: Installation) -> None:
    job_id = ended(
        here,
        step("one", CHANGES),
        step("two", "[ -e $HOME/x ] || { touch $HOME/x; exit 3; }", max_retries=1),
        step("three", "exit 1", on_failure="ask_human"),
        goal="Почини медиану",
        tags=["bug"],
    )
    here.run("approve", job_id, "--comment", "Согласен")
    here.drain()
    page = page_of(here, job_id)
    text = text_of(page)
    assert words_of(page, "h1") == ["Почини медиану"]
    headings = ["Timeline", "Waits", "Cost and resources", "Change", "Steps", "Decisions", "Job"]
    assert words_of(page, "h2") == headings
    assert words_of(page, "h3") == ["one", "two", "three"]
    for told in ("mended <b>&amp;</b>", "новый файл", "привет", "Согласен", "approve", job_id):
        assert told in text, told
    bars = [one for one in elements(page) if name(one) == "rect" and "rx" in one.attrib]
    attempts = list((here.artifacts(job_id) / "steps").glob("*/attempts/*"))
    assert len(bars) == len(attempts) == 5
    assert len([one for one in elements(page) if name(one) == "circle"]) == 1


@pytest.mark.needs("git", "bwrap")
def test_a_page_asks_nobody_and_runs_nothing(here: Installation) -> None:
    page = page_of(here, ended(here))
    policy = policy_of(page)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    (style,) = [one for one in elements(page) if name(one) == "style"]
    digest = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    found = {name(one) for one in elements(page)}
    assert not found & {"script", "link", "img", "iframe", "object", "form", "base", "a:href"}
    attributes = {key for one in elements(page) for key in one.attrib}
    assert not attributes & {"src", "style", "srcset", "action"}
    assert not [key for key in attributes if key.startswith("on")]
    targets = [one.attrib["href"] for one in elements(page) if "href" in one.attrib]
    assert all(re.fullmatch(r"#[a-z0-9-]+", one) for one in targets)
    assert "url(" not in (style.text or "")
    assert "@import" not in (style.text or "")


@pytest.mark.needs("git", "bwrap")
def test_a_page_is_accessible_in_its_form(here: Installation) -> None:
    page = page_of(here, ended(here))
    assert parsed(page).attrib["lang"] == "en"
    assert len(words_of(page, "h1")) == 1
    assert len(words_of(page, "title")[0]) > 10
    levels = [int(name(one)[1]) for one in elements(page) if re.fullmatch("h[1-6]", name(one))]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for one in elements(page):
        if name(one) == "th":
            assert one.attrib["scope"] in ("col", "row")
        if name(one) == "svg":
            assert one.attrib.get("aria-label") or one.attrib.get("aria-hidden") == "true"
    ids = [one.attrib["id"] for one in elements(page) if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    targets = {one.attrib["href"][1:] for one in elements(page) if "href" in one.attrib}
    assert targets <= set(ids)


# ---- hostile ----------------------------------------------------------------------------------


def filled(here: Installation, job_id: str, words: str) -> str:
    """The page of a job in all of whose texts these words are, in a directory of their own."""
    top = here.artifacts(job_id)
    whole = json.loads((top / "steps/one/attempts/1/result.json").read_bytes())
    lines = words.splitlines() or [""]
    whole |= {"summary": words, "model": words, "session_id": words, "question": words}
    whole |= {"verdict": {"decision": words, "reasons": [words]}}
    whole |= {"outcome": words, "credential": words}
    whole["error"] = {"code": words, "message": words, "details": {words: words}}
    whole["metrics"] |= {words: words, "cost_usd": words, "tokens_in": [words]}
    whole["network"] = {"refused": [{"what": words, "why": words}]}
    whole["program"] = {"path": words, "version": words}
    written(top / "steps/one/attempts/1/result.json", json.dumps(whole))
    job = json.loads((top / "result.json").read_bytes())
    job["error"] = {"code": words, "message": words}
    written(top / "result.json", json.dumps(job))
    written(
        top / "steps/one/attempts/1/report.md",
        f"# {words}\n\n- {words}\n\n**{words}**\n\n`{words}`\n",
    )
    written(top / "steps/one/attempts/1/logs.txt", words)
    head = f"diff --git a/x b/{lines[0]}\nnew file mode 100644\n--- /dev/null\n+++ b/{lines[0]}\n"
    written(top / "patch.diff", f"{head}@@ -0,0 +1,1 @@ {lines[0]}\n+{lines[0]}\n")
    decision = {
        "when": words,
        "who": {"name": words},
        "what": words,
        "comment": words,
        "step": words,
    }
    decision |= {"question": words, "accept": words, "before": words, "after": words}
    late = {**decision, "when": "2026-01-01T00:00:00Z"}
    written(top / "decisions.jsonl", f"{json.dumps(decision)}\n{json.dumps(late)}\n")
    late |= {"who": {"token": words, "name": words}}
    with (top / "decisions.jsonl").open("a") as file:
        for what in ("priority", "hold", words):
            file.write(f"{json.dumps(late | {'what': what})}\n")
    marker = {"who": None, "reason": words, "when": "2026-01-01T00:00:00Z"}
    written(top / "hold", json.dumps(marker))
    allowance = {"max_cost_usd": 1.5, "cap": words}
    written(top / "steps/one/attempts/1/allowance.json", json.dumps(allowance))
    return page_of(here, job_id)


@pytest.mark.needs("git", "bwrap")
def test_nothing_that_an_author_wrote_becomes_markup(here: Installation) -> None:
    pages = []
    for words in ("harmless ".ljust(len(HOSTILE), "x"), HOSTILE):
        job_id = ended(
            here,
            step("one", f"true {shlex.quote(words)}", role=words[:128]),
            goal=words,
            tags=[words],
            metadata={words: words},
        )
        pages.append((job_id, filled(here, job_id, words)))
    (_, harmless), (job_id, hostile) = pages
    shown = {key: n for key, n in markup(harmless).items() if key[1] not in ("content", "datetime")}
    other = {key: n for key, n in markup(hostile).items() if key[1] not in ("content", "datetime")}
    assert without_places(other) == without_places(shown)
    # it is all there, as text
    assert text_of(hostile).count("<script>alert(1)</script>") >= 20
    assert "77" not in "".join(words_of(hostile, "h1"))
    index = here.run("report", "--index").stdout
    assert HOSTILE[:100] in text_of(index)
    assert "script" not in {name(one) for one in elements(index)}
    assert job_id in text_of(index)


def without_places(found: dict[tuple[str, str, str], int]) -> dict[tuple[str, str, str], int]:
    """Without where a bar is: two runs take their own time."""
    drawn = {"x", "cx", "width", "y", "cy", "rect", "text"}
    return {key: n for key, n in found.items() if key[1] not in drawn and key[0] not in drawn}


@pytest.mark.needs("git", "bwrap")
def test_what_nobody_would_see_is_shown(here: Installation) -> None:
    job_id = ended(here)
    page = filled(here, job_id, UNSEEN)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", page
    )
    text = text_of(page)
    for told in (
        "␛[31m",
        "␀",
        "⟨U+202E⟩",
        "⟨U+2066⟩",
        "⟨U+200B⟩",
        "⟨U+FFFE⟩",
        "⟨U+E0041⟩",
        "⟨U+0085⟩",
    ):
        assert told in text, told


@pytest.mark.needs("git", "bwrap")
def test_a_secret_that_the_submitter_wrote_is_redacted(here: Installation) -> None:
    secret = f"ghp_{'a1B2' * 9}"
    job_id = here.submit(step("one", f"echo {secret}"), goal=f"Use {secret}")
    assert secret not in page_of(here, job_id)
    assert secret not in here.run("report", "--index").stdout


# ---- bounds -----------------------------------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_long_patches_reports_and_logs_are_cut_and_the_page_says_so(here: Installation) -> None:
    job_id = ended(here)
    top = here.artifacts(job_id)
    added = "".join(f"+line {number}\n" for number in range(100_000))
    head = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1,100000 @@\n"
    written(top / "patch.diff", f"{head}{added}")
    written(top / "steps/one/attempts/1/logs.txt", "log\n" * 100_000 + "the end\n")
    written(top / "steps/one/attempts/1/report.md", "word " * 100_000)
    page = page_of(here, job_id)
    text = text_of(page)
    assert len(page) < 1_500_000
    assert "+100\u202f000" in text
    assert "line 798" in text
    assert "line 799" not in text
    assert "99\u202f201 more lines are not shown." in text
    assert "the end" in text
    assert "before this are left out." in text


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize(
    "gone", ["state.json", "result.json", "patch.diff", "steps", "decisions.jsonl"]
)
def test_missing_files_are_left_out(here: Installation, gone: str) -> None:
    job_id = ended(here)
    path = here.artifacts(job_id) / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    assert words_of(page_of(here, job_id), "h1") == ["a goal"]


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', '{"steps": 3}', '{"metrics": 1e999}'])
def test_torn_and_odd_files_are_left_out(here: Installation, content: str) -> None:
    job_id = ended(here)
    top = here.artifacts(job_id)
    for path in ("state.json", "result.json", "steps/one/attempts/1/result.json"):
        written(top / path, content)
    written(top / "decisions.jsonl", "[]\n{}\nx\n")
    assert "a goal" in text_of(page_of(here, job_id))
    parsed(here.run("report", "--index").stdout)


# ---- jobs of every state ----------------------------------------------------------------------


def waits(here: Installation) -> str:
    return here.submit(
        step("one", "true"),
        policy={
            "requires_approval": True,
            "sandbox": True,
            "network": "deny",
            "allowed_binaries": [],
        },
    )


def is_cancelled(here: Installation) -> str:
    job_id = here.submit(step("one", "true"))
    here.run("cancel", job_id)
    return job_id


def is_simulated(here: Installation) -> str:
    job_id = here.run("submit", "--goal", "a goal").stdout.strip()
    here.drain(ENABLE_REAL_CLI="0")
    return job_id


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda here: here.submit(step("one", "true")), "pending"),
        (waits, "awaiting approval"),
        (is_cancelled, "cancelled"),
        (is_simulated, "success"),
        (lambda here: ended(here, step("one", "exit 4")), "failed"),
        (lambda here: ended(here, step("one", "exit 4", on_failure="ask_human")), "needs human"),
        (lambda here: ended(here, step("one", "head -c 3000 /dev/urandom > b")), "success"),
    ],
)
def test_a_job_of_every_state_has_a_page(
    here: Installation, make: Callable[[Installation], str], status: str
) -> None:
    page = page_of(here, make(here))
    pill = next(one for one in elements(page) if one.attrib.get("class", "").startswith("pill"))
    assert "".join(pill.itertext()) == status


@pytest.mark.needs("git", "bwrap")
def test_a_running_job_has_a_page(here: Installation) -> None:
    job_id = here.submit(step("one", "echo begun; sleep 60"), step("two", "true"))
    here.start("runner", "--drain")
    log = here.artifacts(job_id) / "steps/one/attempts/1/logs.txt"
    process = here.start("logs", "--follow", job_id)
    assert process.stdout is not None
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    assert log.exists()
    page = page_of(here, job_id)
    assert "running" in text_of(page)
    assert "begun" in text_of(page)
    here.run("cancel", job_id)


# ---- the index, and where a page goes ---------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_the_index_lists_the_newest_first_and_no_more_than_asked(here: Installation) -> None:
    first, second = ended(here), ended(here, step("one", "exit 1"))
    third = here.submit(step("one", "true"), goal="почини")
    page = here.run("report", "--index").stdout
    text = "".join(words_of(page, "tbody"))
    assert text.index(third) < text.index(second) < text.index(first)
    assert "3 of 3, the newest first" in text_of(page)
    few = text_of(here.run("report", "--index", "--limit", "1").stdout)
    assert third in few
    assert second not in few
    assert "1 of 3, the newest first" in few


def test_the_index_of_nothing(here: Installation) -> None:
    page = here.run("report", "--index").stdout
    assert "There are no jobs." in text_of(page)
    assert not here.state.exists()


@pytest.mark.needs("git", "bwrap")
def test_a_page_goes_to_a_file_in_one_rename(here: Installation) -> None:
    job_id = ended(here)
    path = here.top / "page.html"
    path.write_text("old")
    with path.open() as before:
        assert here.run("report", job_id, "-o", str(path)).stdout == ""
        assert before.read() == "old"
    assert words_of(path.read_text("utf-8"), "h1") == ["a goal"]
    assert here.run("report", given=job_id).stdout.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x" * 32,), "no job"),
        (("--index", "x"), "give no id"),
        (("a", "b"), "give exactly one id"),
        (("--index", "-o", "/nonexistent/x.html"), "/nonexistent/x.html: No such file"),
        (("--index", "-o", "/"), "/: Is a directory"),
        (("--index", "--limit", "0"), "--limit"),
    ],
)
def test_what_is_refused(here: Installation, arguments: tuple[str, ...], words: str) -> None:
    done = here.run("report", *arguments, code=None)
    assert done.returncode == (1 if words == "no job" else 2)
    assert done.stdout == ""
    assert words in done.stderr


# ---- waits, decisions and caps ----------------------------------------------------------------


def much_decided(here: Installation) -> str:
    """A job that was approved, answered by a token, edited, held, and is parked by now."""
    job_id = ended(
        here,
        step("plan", f"{CHANGES}; exit 1", on_failure="ask_human"),
        step("build", "echo built >> README", approve_after=True),
        step("check", "true"),
        policy={
            "requires_approval": True,
            "sandbox": True,
            "network": "deny",
            "allowed_binaries": [],
        },
        goal="Mend the median",
    )
    here.run("approve", job_id, "--comment", "Off you go")
    here.drain()
    steps = json.loads((here.artifacts(job_id) / "job.json").read_bytes())["steps"]
    edit = {"steps": steps, "policy": {"max_cost_usd": 2.5}}
    here.run("edit", job_id, given=json.dumps(edit))
    token = {"token": "sha256:abcd1234", "name": "ci <bot>"}
    approve(queue_of(here), job_id, accept=True, comment="Good & <b>enough</b>", by=token)
    here.drain()
    here.run("priority", "1", job_id)
    here.run("approve", job_id)
    here.run("hold", job_id, "--comment", "Not tonight")
    here.run("release", job_id)
    park(here, job_id)
    allowance = {"max_cost_usd": 1.25, "cap": "project:demo"}
    written(here.artifacts(job_id) / "steps/plan/attempts/1/allowance.json", json.dumps(allowance))
    return job_id


def queue_of(here: Installation) -> Queue:
    state = here.state
    roots = Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")
    return Queue(roots)


def park(here: Installation, job_id: str) -> None:
    """As an owner parks a job that waits until a budget's next day."""
    (path,) = (here.state / "queue/pending").glob(f"*{job_id}*")
    path.rename(here.state / f"queue/parked/20990101T000000Z-{path.name}")
    state = here.artifacts(job_id) / "state.json"
    reason = "$5 of MAX_DAILY_COST_USD are used up until the next day (UTC)"
    parked = {"until": "2099-01-01T00:00:00Z", "kind": "budget", "reason": reason}
    written(
        state, json.dumps(json.loads(state.read_bytes()) | {"parked": parked, "status": "parked"})
    )


@pytest.mark.needs("git", "bwrap")
def test_a_page_tells_who_decided_what_it_waited_for_and_what_it_might_cost(
    here: Installation,
) -> None:
    job_id = much_decided(here)
    page = page_of(here, job_id)
    text = text_of(page)
    for told in (
        "ci <bot> (token sha256:abcd1234)",
        "Good & <b>enough</b>",
        "It was edited since it was submitted",
        "It is parked until 2099-01-01 00:00:00 UTC",
        "$5 of MAX_DAILY_COST_USD are used up",
        "project:demo",
        "$1.25",
        "it was to be approved before its start",
        "Not tonight",
        "taken as it is by a human",
    ):
        assert told in text, told
    waits = page[page.index('<h2 id="waits">') : page.index('<h2 id="resources">')]
    assert re.findall(r'<th scope="row" class="nowrap">(.*?)</th>', waits) == [
        *("for a human", "for a human", "for a human"),
        *("held", "parked"),
    ]
    assert "until <time" in waits
    index = here.run("report", "--index").stdout
    assert "parked" in "".join(words_of(index, "tbody"))
    assert "nothing that is known of" in text_of(index)


def test_a_line_of_waits_is_in_order_and_open_where_it_lasts() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=number) for number in range(9)]
    lines = [
        {"what": "approve", "when": hours[1].isoformat(), "who": "a"},
        {"what": "hold", "when": hours[6].isoformat(), "comment": "c"},
        "torn",
    ]
    course = Course(
        state=State.HELD,
        submitted_at=start,
        started_at=hours[1],
        must_be_approved=True,
        ran=(
            AttemptRun(hours[2], hours[3], "quota", "wall"),
            AttemptRun(hours[5], hours[6], "success", "s"),
        ),
        decisions=tuple(one for one in lines if isinstance(one, dict)),
        parked=None,
        hold={},
    )
    assert [(one.what, one.start, one.end) for one in waits_of(course)] == [
        ("for a human", start, hours[1]),
        ("parked", hours[3], hours[5]),
        ("held", hours[6], None),
    ]


# ---- in a browser -----------------------------------------------------------------------------


@pytest.mark.needs("git", "bwrap", "chromium-headless-shell")
@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_shows_it_within_its_width(here: Installation, width: int) -> None:
    """The browser itself says how wide the page became, and what its policy refused."""
    job_id = ended(here, goal=HOSTILE)
    page = filled(here, job_id, HOSTILE + "x" * 3000)
    # it has no script: one that measures it takes its policy's place
    measuring = "<script>document.title = 'W' + document.documentElement.scrollWidth</script>"
    measured = page.replace(page[page.index("<meta http-equiv") : page.index("<meta name")], "")
    path = here.top / "page.html"
    path.write_text(measured.replace("</body>", f"{measuring}</body>"), "utf-8")
    done = subprocess.run(
        [
            *("chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            f"--user-data-dir={here.top / 'browser'}",
            *(f"--window-size={width},900", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    title = re.search(r"<title>W(\d+)</title>", done.stdout)
    assert title is not None
    assert int(title[1]) <= width
