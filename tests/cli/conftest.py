"""The fixtures of `cli_workshop`, for every test of this folder."""

from cli_workshop import quantbench, tiny

__all__ = ["quantbench", "tiny"]
