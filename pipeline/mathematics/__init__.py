"""Numbers about numbers: neighbours, correlations, significance, time."""
