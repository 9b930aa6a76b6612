"""The stages: extract, distill, evaluate, compare, bench. None imports another's insides."""
