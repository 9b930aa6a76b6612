"""What vouches for the rest of a store: records, the table of all of them, and what they list."""
