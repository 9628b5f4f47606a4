"""The one family of exceptions; each carries the exit status of the command line."""

from __future__ import annotations

__all__ = ["InputError", "MissingError", "QuantbenchError", "RefusedError"]


class QuantbenchError(Exception):
    """Something the user can act on, said in one sentence without a traceback."""

    status = 2


class InputError(QuantbenchError):
    """An input, option or file is not usable as given (exit status 2)."""

    status = 2


class MissingError(QuantbenchError):
    """A model, data set or package is not there; the sentence says how to get it (exit status 3)."""

    status = 3


class RefusedError(QuantbenchError):
    """The gate or the audit says no (exit status 1)."""

    status = 1
