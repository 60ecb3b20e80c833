"""Readers of other checkpoint formats, one file each."""
