"""The figures as a table, and the page with its plots: python -m bench.report FILE."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
SECONDS: Final = ("latency", "import")
"""What is better where it is less."""
PLAIN: Final = ("memory MB", "idle statements", "ran twice")
SURVIVE_NOT: Final = ("huey", "rq")
_ORDER: Final = ("redis", "postgresql", "sqlite", "memory")
_TITLES: Final = {
    "drain 100": "jobs a second, 100 at once",
    "drain 10": "jobs a second, 10 at once",
    "bulk": "enqueued a second, in bulk",
    "gathered": "enqueued a second, gathered",
    "one": "enqueued a second, one by one",
    "latency": "milliseconds to an idle worker",
}

Figures = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]


def best(what: str, figures: Sequence[float]) -> float:
    """The best round."""
    return min(figures) if what in SECONDS else max(figures)


def table(found: Mapping[str, Any]) -> str:
    """All figures, each with what share of it jobmill has, or how many times it is."""
    figures: Figures = found["figures"]
    lines = ["| store | what | of | best round | jobmill does |", "|---|---|---|---:|---:|"]
    for store in sorted(figures):
        for what, by_whom in figures[store].items():
            ours = best(what, by_whom["jobmill"]) if "jobmill" in by_whom else None
            for whose, rounds in by_whom.items():
                figure = best(what, rounds)
                share = "" if whose == "jobmill" or not ours else _share(what, ours, figure)
                lines.append(f"| {store} | {what} | {whose} | {_shown(what, figure)} | {share} |")
    return "\n".join(lines)


def _share(what: str, ours: float, theirs: float) -> str:
    if what in PLAIN or not theirs:
        return ""
    times = theirs / ours if what in SECONDS else ours / theirs
    return f"{times:.2f} times"


def _shown(what: str, figure: float) -> str:
    if what in SECONDS:
        return f"{figure * 1_000:.2f} ms"
    return f"{figure:,.1f}" if what in PLAIN else f"{figure:,.0f}"


def plot(title: str, bars: Sequence[tuple[str, float]], unit: str) -> str:
    """Bars, the best first, as SVG; it reads on light and on dark."""
    height, left, right, top = 24, 120, 520, 34
    most = max(value for _, value in bars)
    rows = []
    for place, (name, value) in enumerate(bars):
        y = top + place * height
        width = max(1.0, value / most * (right - left))
        colour = "#2f7d4f" if name == "jobmill" else "#8a8f98"
        rows.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{width:.1f}" height="{height - 7}" '
            f'fill="{colour}"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 15}">{value:,.{0 if value >= 100 else 2}f}'
            "</text>"
        )
    tall = top + len(bars) * height + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {tall}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#6b7280">'
        f"<title>{escape(title)}</title>"
        f'<text x="8" y="18" font-size="14" font-weight="600">{escape(title)} ({unit})</text>'
        f"{''.join(rows)}</svg>\n"
    )


def page(found: Mapping[str, Any], folder: Path) -> str:
    """The page; its plots are written into the folder."""
    figures: Figures = found["figures"]
    about = found["about"]
    folder.mkdir(exist_ok=True)
    parts = [_HEAD]
    if float(about["load of the minute before"] or 0) > 1.0:
        parts.append(_BUSY)
    for store in [each for each in _ORDER if each in figures]:
        parts.append(f"## {store}\n")
        for what, title in _TITLES.items():
            by_whom = figures[store].get(what, {})
            if "jobmill" not in by_whom or len(by_whom) < 2:
                continue
            scale = 1_000 if what in SECONDS else 1
            bars = [(name, best(what, rounds) * scale) for name, rounds in by_whom.items()]
            bars.sort(key=lambda bar: bar[1], reverse=what not in SECONDS)
            name = f"{store}-{what.replace(' ', '-')}.svg"
            unit = "less is better" if what in SECONDS else "more is better"
            (folder / name).write_text(plot(f"{store}: {title}", bars, unit))
            parts.append(f"![{store}, {title}]({folder.name}/{name})\n")
    told = "\n".join(f"- {name}: {_told(value)}" for name, value in about.items())
    parts += ["## How it was measured\n", told + "\n", "## All figures\n", table(found) + "\n"]
    return "\n".join(parts)


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())  # pyright: ignore[reportUnknownVariableType]
    return f"`{value}`"


_HEAD: Final = """\
# Benchmarks

Printed by `make bench`. All is measured in one run, in rounds that alternate between what is
compared, and the best round of each counts. Read the ratios, not the rates: another machine, or
another hour, has other rates. Each job does nothing.

"bare" is the limit: a loop over the same driver, on the same tables and in the same batches, that
runs no library at all. Peers are set up as their documentation advises for throughput, each by a
program in `bench/peers`, in one process. huey neither acknowledges nor waits for the disk here,
and rq loses the job of a worker that dies; all others survive a crash. jobmill counts until the
last job is settled in the store, the peers only until the last one has run.
"""


_BUSY: Final = """\
**The machine was busy with other work in this run**, as its load below says: whoever waits for a
thread, a process or a disk waited for others as well, and by chance. What is less than a few times
apart here tells nothing; run it on a quiet machine.
"""


def main() -> None:
    """Write the page and its plots out of a file of figures."""
    found = json.loads(Path(sys.argv[1]).read_text())
    (DOCS / "benchmarks.md").write_text(page(found, DOCS / "benchmarks"))


if __name__ == "__main__":
    main()
