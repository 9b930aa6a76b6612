"""A self-supervised encoder of handwritten digits, the quickstart's teacher: weights and recipe."""
