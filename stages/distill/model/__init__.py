"""The student with its heads: what it is made of, and how its forward pass is done."""
