"""Measurements that a user can repeat: ratios of two things timed in turn in one process."""
