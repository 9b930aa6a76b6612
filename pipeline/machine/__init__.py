"""The Python, the libraries and the cluster that commands run on."""
