"""Losses of outputs and labels: GCL, and what it is compared with."""
