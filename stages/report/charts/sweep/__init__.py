"""Figures of a sweep: its settings, how it went, all trials at once."""
