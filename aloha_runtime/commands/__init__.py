"""Finite jobs behind the sub-commands."""
