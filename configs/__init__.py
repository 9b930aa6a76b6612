"""Experiment files that ship with egapipe: `egapipe distill -c NAME`."""
