"""Where the bytes of a store are: objects under keys, on a disk or in an object store."""
