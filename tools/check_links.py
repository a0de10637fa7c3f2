"""Finds links in this repository's Markdown files that lead nowhere: missing files and missing headings.

Usage: python tools/check_links.py [folder]. Links to other sites are not followed. Exit code 1 when one is dead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
FENCE = re.compile(r"^ {0,3}(```|~~~)")
CODE_SPAN = re.compile(r"`[^`]*`")


def prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of ``text`` outside fenced code."""
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and not inside:
            inside = fence[1]
        elif fence and fence[1] == inside:
            inside = ""
        elif not inside:
            yield number, line


def anchors(text: str) -> set[str]:
    """The names that the headings of ``text`` can be linked by, as GitHub makes them."""
    found: set[str] = set()
    for _, line in prose_lines(text):
        if heading := HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            repeats = sum(1 for known in found if known == name or re.fullmatch(rf"{re.escape(name)}-\d+", known))
            found.add(f"{name}-{repeats}" if repeats else name)
    return found


def links(text: str) -> Iterator[tuple[int, str]]:
    """(line, target) of each link in ``text``."""
    for number, line in prose_lines(text):
        plain = CODE_SPAN.sub("", line)
        yield from ((number, found[1]) for found in LINK.finditer(plain))
        if definition := DEFINITION.match(plain):
            yield number, definition[1]


def problem(page: Path, target: str, root: Path) -> str | None:
    """What is wrong with a link on ``page``; None when it leads somewhere or to another site."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
        return None
    place, _, anchor = unquote(target).partition("#")
    goal = page if not place else (root / place.lstrip("/") if place.startswith("/") else page.parent / place)
    if not goal.exists():
        return f"{target}: no such file"
    if anchor and goal.suffix == ".md" and anchor.lower() not in anchors(goal.read_text("utf-8")):
        return f"{target}: no such heading in {goal.name}"
    return None


def pages(root: Path) -> list[Path]:
    """The Markdown files that git knows or would add; outside a repository all of them."""
    command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [root / name for name in listed.stdout.splitlines() if (root / name).exists()]
    return sorted(root.rglob("*.md"))


def dead_links(root: Path) -> list[str]:
    """A line for each dead link under ``root``: page, line and what is wrong."""
    return [
        f"{page.relative_to(root)}:{number}: {wrong}"
        for page in pages(root)
        for number, target in links(page.read_text("utf-8"))
        if (wrong := problem(page, target, root))
    ]


if __name__ == "__main__":
    dead = dead_links(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    sys.stdout.write("\n".join([*dead, f"{len(dead)} dead links"]) + "\n")
    sys.exit(1 if dead else 0)
