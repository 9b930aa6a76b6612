"""Who extracts: one worker, inline or many of them on Ray."""
