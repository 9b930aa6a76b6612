"""Rows that are arrays of one shape, not images."""
