"""Artifact bytes at rest, on disk, until they are uploaded."""
