"""A page about a finished run: what its model is worth on the test images."""
