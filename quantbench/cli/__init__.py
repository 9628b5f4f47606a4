"""The command line: one small file a command, and one place where an error becomes a sentence."""

from quantbench.cli.app import cli, main

__all__ = ["cli", "main"]
