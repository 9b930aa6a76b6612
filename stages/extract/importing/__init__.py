"""Stores made from embeddings that another program computed."""
