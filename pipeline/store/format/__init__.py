"""What a store consists of: manifest, layout, number types, shards and index (docs/store.md)."""
