"""Functions from data to figures, in one visual language."""
