"""Headless Chromium for tests of pages, and what is measured inside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 900), (360, 780)

# Every piece of visible text whose contrast (WCAG 2.2, 1.4.3) with the background behind it is too low.
LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
      if (colour[3] !== 0) throw new Error("a half transparent background: " + at.outerHTML.slice(0, 80));
    }
    throw new Error("nothing is behind the page");
  };
  const found = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest(".unseen, .skip, script, style")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    looked += 1;
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${text.slice(0, 50)}`);
  }
  if (looked < 20) throw new Error("looked at " + looked + " texts only");
  return found;
}
"""


@dataclass
class Watched:
    """A page and what it did: messages in the console, errors, requests."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, file: Path) -> None:
        """Open a file and wait until everything in it is there."""
        self.page.goto(file.as_uri(), wait_until="load")

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def assert_quiet(self, *files: Path) -> None:
        """Nothing was said in the console, and nothing but these files was asked for."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:")] == [file.as_uri() for file in files]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is no Chromium (or CHROMIUM names none) or no driver for it."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup-dev)")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox root
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: Browser, size: tuple[int, int] = DESKTOP, **how: Any) -> Iterator[Watched]:
    """A page in a window of ``size`` pixels; what would leave this machine is refused."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **how)
    context.set_default_timeout(10_000)
    context.route("**/*", lambda route: route.continue_() if _is_here(route.request) else route.abort())
    found = Watched(context.new_page())
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda request: found.asked.append(request.url))
    try:
        yield found
    finally:
        context.close()


def _is_here(request: Request) -> bool:
    return request.url.startswith(("file:", "data:"))
