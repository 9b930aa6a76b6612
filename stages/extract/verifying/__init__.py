"""Whether a store is what its teacher says."""
