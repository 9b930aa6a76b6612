"""Figures, one file a subject: Vega-Lite, interactive on the page and a PNG file beside it."""
