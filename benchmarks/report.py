"""`python -m benchmarks.report FIGURES.json`: the tables of a run, as Markdown; with --into
README.md put between the marks of its kind of device."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import goals, machine, scaling
from benchmarks.suite import PARTS

README = Path(__file__).resolve().parent / "README.md"


def markdown(figures: dict) -> str:
    """Machine and date, the goals, then each part with the command that measures it."""
    device = figures["device"]
    kind = device.partition(":")[0]
    lines = [f"{machine.one_line(figures['machine'])}; commit {commit(figures['machine'])}."]
    lines.append(f"A copy in this run: {figures['copy_bandwidth'] / 1e9:.3g} GB/s.")
    least, most = min(figures["thread_gain"]), max(figures["thread_gain"])
    lines.append(f"All threads multiplied {least:.2f} to {most:.2f} times as fast as one.")
    lines += [f"{name} is absent: {why}." for name, why in figures["absent"].items()]
    sections = [" ".join(lines)]
    if figures["quick"]:
        sections.append("A quick run: its times are too short to be judged.")
    elif figures.get("goals"):
        sections += _section("Goals", f"python -m benchmarks --device {kind}",
                             goals.tables(figures["goals"], device))  # fmt: skip
    for name, part in PARTS.items():
        if figures.get(name):
            command = f"python -m benchmarks --device {kind} --only {name}"
            sections += _section(name, command, part.tables(figures[name], device))
    return "\n\n".join(sections)


def _section(name: str, command: str, tables) -> list[str]:
    title = name.replace("-", " ").capitalize()
    return [f"### {title}\n\n`{command}`", *(table.markdown() for table in tables)]


def commit(found: dict) -> str:
    if not found.get("commit"):
        return "unknown"
    return found["commit"][:10] + (" with changes" if found["changed_files"] else "")


def marks(device: str) -> tuple[str, str]:
    kind = device.partition(":")[0]
    return f"<!-- figures: {kind} -->", f"<!-- end of figures: {kind} -->"


def insert(text: str, figures: dict) -> str:
    """The text with what is between the marks replaced; ValueError if they are not there."""
    begin, end = marks(figures["device"])
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"there is no {begin} ... {end}")
    return f"{before}{begin}\n\n{markdown(figures)}\n\n{end}{after}"


def main(given=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("figures", type=Path, help="the JSON of a run")
    parser.add_argument("--into", type=Path, metavar="FILE", help=f"such as {README.name}")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the growth of times")
    options = parser.parse_args(given)
    figures = json.loads(options.figures.read_text(encoding="utf-8"))
    if options.into:
        text = insert(options.into.read_text(encoding="utf-8"), figures)
        options.into.write_text(text, encoding="utf-8")
    else:
        print(markdown(figures))
    if options.plot and figures.get("growth"):
        scaling.draw(figures["growth"], options.plot, figures["device"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
