"""A page as a real headless browser shows it."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in _NAMES if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser is installed: none of {', '.join(_NAMES)}"
)
PHONE, DESKTOP = 390, 1100

# First in the page: nothing that goes wrong afterwards is missed.
_WATCH = """<script>
window.wrong = [];
addEventListener("error", (event) => wrong.push(event.message || event.target.outerHTML), true);
addEventListener("securitypolicyviolation", (event) => wrong.push(`refused: ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...texts) => wrong.push(texts.join(" "));
</script>"""

# Last in the outer page, which holds the report in a frame as wide as a screen would be: a window
# cannot be made as narrow as a phone.
_PROBE = """<script>
const box = (element) => {
  const { width, height, left, top, right, bottom } = element.getBoundingClientRect();
  return { width, height, left, top, right, bottom };
};
const frame = document.querySelector("iframe");
frame.addEventListener("load", async () => {
  const view = frame.contentWindow, page = frame.contentDocument;
  const style = (element) => view.getComputedStyle(element);
  const all = (selector) => [...page.querySelectorAll(selector)];
  await view.drawn;
  const found = {
    wrong: view.wrong,
    width: view.innerWidth,
    scroll: page.documentElement.scrollWidth,
    background: style(page.body).backgroundColor,
    ink: style(page.body).color,
    figures: all("figure").map((figure) => ({
      id: figure.id,
      panels: [...figure.querySelectorAll("svg")].map(box),
      marks: figure.querySelectorAll("svg path, svg use, svg image").length,
      texts: [...figure.querySelectorAll("svg text")].filter((text) => text.textContent).map(
        (text) => ({ text: text.textContent, fill: style(text).fill,
          panel: box(text.closest("svg")), ...box(text) })),
    })),
    images: all("img").map((image) => image.naturalWidth),
    hovers: await all("figure:has(img.sheet) svg").reduce(async (before, svg) => {
      const hovers = await before;
      const points = [...svg.querySelector(".mark-symbol").querySelectorAll("path")];
      const point = points[Math.floor(points.length / 2)];
      const at = point.getBoundingClientRect();
      const x = at.left + at.width / 2, y = at.top + at.height / 2;
      const tile = page.querySelector(".tile"), hidden = tile.hidden;
      const send = (kind, x, y) => svg.dispatchEvent(
        new view.PointerEvent(kind, { clientX: x, clientY: y, bubbles: kind !== "pointerleave" }));
      send("pointermove", x, y);
      const shown = { before: hidden, hidden: tile.hidden, text: tile.textContent, ...box(tile),
        picture: style(tile.querySelector("i")).backgroundImage.slice(0, 20) };
      await new Promise((done) => setTimeout(done, 300));
      // The second group of symbols of each panel is the ring.
      shown.rings = all("figure:has(img.sheet) svg").map((one) =>
        one.querySelectorAll(".mark-symbol")[1].querySelectorAll("path").length);
      send("pointermove", -99, -99);
      return [...hovers, { points: points.length, ...shown, after: tile.hidden }];
    }, []),
    asked: await (async () => { ASK })(),
  };
  document.body.innerHTML = "<pre id=probe></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script>"""


@dataclass(frozen=True)
class Shown:
    """found: what the probe saw. console: the browser's own log of the page."""

    found: dict[str, Any]
    console: list[str]


def show(
    page: Path, folder: Path, *, width: int = DESKTOP, dark: bool = False, ask: str = ""
) -> Shown:
    """Load a page in a frame of some width, in light or dark colours, and look at it.

    ask: JavaScript that does something to the page at last, with `page`, its document, `all` and
    `style`; what it returns is `asked` of what was found.
    """
    # Before the page's policy, which would not have it run.
    content = page.read_text("utf-8").replace("<head>", f"<head>{_WATCH}", 1)
    frame = (
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{html.escape(content)}">'
    )
    outer = folder / "outer.html"
    probe_script = _PROBE.replace("ASK", ask)
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}</iframe>{probe_script}', "utf-8"
    )
    dom, log = _run(folder, dark, "--virtual-time-budget=60000", "--dump-dom", outer.as_uri())
    probe = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert probe is not None, f"the page was not looked at: {log[-2000:]}"
    return Shown(
        json.loads(html.unescape(probe.group(1))),
        [line for line in log.splitlines() if "CONSOLE" in line],
    )


def _run(folder: Path, dark: bool, *arguments: str) -> tuple[str, str]:
    command = [
        str(BROWSER),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-quic",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        # Not --force-dark-mode, which inverts the colours of pages that have no dark ones.
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *arguments,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr
