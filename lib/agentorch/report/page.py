"""The pages: templates filled with escaped values, under a strict Content-Security-Policy.

The policy names the only style sheet by its hash, so a style that got into a page in spite of the
escaping would have no effect; scripts, images, frames, forms and requests are refused altogether.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agentorch.report import figures
from agentorch.report.gather import FACTS, JobView
from agentorch.report.overview import Overview

TEMPLATES = Path(__file__).parent / "templates"
LABELS = {
    "duration_ms": "Time",
    "cost_usd": "Cost",
    "tokens_in": "Tokens in",
    "tokens_out": "Tokens out",
    "cpu_s": "CPU",
    "memory_peak_bytes": "Memory peak",
}


def job_page(view: JobView) -> str:
    """Return the HTML page of a job."""
    return _environment().get_template("job.html.j2").render(view=view, **_style_and_policy())


def index_page(view: Overview) -> str:
    """Return the HTML page of many jobs."""
    return _environment().get_template("index.html.j2").render(view=view, **_style_and_policy())


def _style_and_policy() -> dict[str, Any]:
    style = (TEMPLATES / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return {"style": Markup(style), "policy": policy}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible_value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (
        figures.span,
        figures.count,
        figures.money,
        figures.size,
        figures.clock,
        figures.machine,
        figures.person,
    )
    environment.filters.update({one.__name__: one for one in filters})
    environment.filters.update(
        tone=figures.tone, short=figures.short, plain=figures.plain, cut=figures.cut
    )
    environment.globals.update(
        metric=figures.metric,
        between_s=figures.between_s,
        moment=figures.moment,
        FACTS=FACTS,
        LABELS=LABELS,
    )
    return environment


def _visible_value(value: object) -> object:
    """Return the value of a template's expression with invisible characters made visible.

    jinja2 calls it for every expression, before it escapes the value.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return figures.visible(value)
    return "" if value is None else value
