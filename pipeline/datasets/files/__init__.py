"""The files that a data set lies in: found, fetched, opened at any place of them."""
