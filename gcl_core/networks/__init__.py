"""Backbones and classifiers, and the networks of methods that need their own."""
