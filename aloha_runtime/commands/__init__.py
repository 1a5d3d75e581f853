"""Finite jobs of the command line; each file is one sub-command."""
