"""The page itself: one HTML file that needs nothing else and asks for nothing."""

import base64
import hashlib
import json
from pathlib import Path

from results.page import evidence, item_browser, panels, words
from results.page.evidence import Evidence
from results.page.item_browser import Browser
from results.page.panels import Panel
from results.page.ranking import ranking

PAGE = Path(__file__).parent


def page(found: Evidence, shown: list[Panel], missing: list[str], browser: Browser) -> str:
    """The report as HTML. Same evidence, same bytes.

    Args:
        shown, missing: as :func:`results.page.panels.build` gives them.
        browser: as :func:`results.page.item_browser.build` gives it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": words.percent, "points": words.points}
    script = (PAGE / "browser.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        found=found,
        facts=facts(found),
        answer=words.answer(found),
        places=ranking(found),
        panels=shown,
        missing=[*missing, *_unfinished(found)],
        inline=lambda chart: Markup(chart.inline()),
        browser=browser,
        data=Markup(embedded(browser.data)),
        style=Markup((PAGE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
    )


def embedded(data: dict) -> str:
    """``data`` as JSON that may stand in a ``<script>`` element: no character in it can end or open one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def facts(found: Evidence) -> list[tuple[str, str]]:
    """What was compared, for the head of the page: label and value."""
    results = found.runs[found.base].results
    config = results.get("config", {})
    about = [
        ("Base model", evidence.model(found.runs[found.base])),
        ("Variants", ", ".join(found.variants) or "none"),
        ("Tasks", ", ".join(f"{task} ({found.estimate(found.base, task)['n']:,})" for task in found.tasks)),
        ("Prompt", _prompts(found)),
        ("Precision", str(config.get("model_dtype") or "").removeprefix("torch.")),
        ("Harness", f"lm-eval {results['lm_eval_version']}" if results.get("lm_eval_version") else ""),
    ]
    return [(label, value) for label, value in about if value]


def _prompts(found: Evidence) -> str:
    """How items were asked: once if all runs say the same, else of each run."""
    prompts = {name: _prompt(run.results) for name, run in found.runs.items()}
    if len(set(prompts.values())) == 1:
        return prompts[found.base]
    return "; ".join(f"{name}: {prompt}" for name, prompt in prompts.items())


def _prompt(results: dict) -> str:
    shots = sorted({str(n) for n in results.get("n-shot", {}).values()})
    chat_template = results.get("chat_template")
    examples = "no examples" if shots in (["0"], []) else f"{' or '.join(shots)} examples"
    return f"{examples}, {'chat template' if chat_template else 'no chat template'}"


def _unfinished(found: Evidence) -> list[str]:
    left_out = [f"{task}: left out, {reason}." for task, reason in found.comparison["left_out"].items()]
    if found.unfinished:
        left_out.append(f"Not evaluated yet: {', '.join(found.unfinished)}. Running the study again completes them.")
    return left_out


def report(
    found: Evidence, items: int | None = item_browser.DEFAULT_ITEMS, texts: bool = True
) -> tuple[str, list[Panel]]:
    """The page of ``found`` and the panels on it, whose figures may be written to files.

    Args:
        items, texts: ``limit`` and ``texts`` of :func:`results.page.item_browser.build`.
    """
    shown, missing = panels.build(found)
    return page(found, shown, missing, item_browser.build(found, items, texts)), shown
