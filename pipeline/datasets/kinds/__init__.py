"""The kinds of data sets: one file each, and what those of tables share."""
