"""Evaluate a finished student on the labelled test images."""
