"""Which rows, in which views and order, a training learns from."""
