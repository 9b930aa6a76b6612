"""The commands as functions, with plain names and values: what `import egapipe` gives."""
