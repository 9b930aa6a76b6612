"""Names of classes, variants and settings on a page and in its pictures: any character may be in
them."""

from egapipe.pipeline.terminal.text import visible


def shortened(text: str, longest: int = 18) -> str:
    """A text that fits beside an axis."""
    shown = visible(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
