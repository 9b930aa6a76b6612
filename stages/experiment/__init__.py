"""Many trainings of one experiment: planned cells, run here one by one or on Ray Tune together."""
