"""Many short steps on small tensors in one call: sums, differences, products, copies and roundings.

Where a tensor has a few hundred values, calling a function takes longer than what it does. So the steps are rows of a
table, and one kernel goes through them. The tensors are views of one workspace, which the rows name by offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.formats import Format
from quantbench.numerics.kernel import compiled, parameters, round_run

__all__ = ["Program"]

KERNEL_SHA256 = "c331b611dbbb81af00d0833bbdc70590210d7451e48233dcc341985169e1fd7c"
"""Of kernel.py, which says why."""

Values = NDArray[np.float32]

_COPY, _ADD, _SUBTRACT, _MULTIPLY, _ROUND = range(5)
_OPERATIONS: dict[Callable[..., Any], int] = {np.add: _ADD, np.subtract: _SUBTRACT, np.multiply: _MULTIPLY}
_BYTES = 4


class Program:
    """Steps on float32 views of a workspace, taken in order by a call. The result of each has the bits of numpy's.

    Args:
        workspace: a flat float32 array; the program keeps it.
    """

    def __init__(self, workspace: Values) -> None:
        self._values = workspace
        self._patterns = workspace.view(np.uint32)
        self._steps: list[tuple[int, ...]] = []
        self._rows: list[NDArray[np.uint32]] = []
        self._constants: list[Values] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._steps)

    def compute(self, function: Callable[..., Any], left: Values, right: Values, out: Values) -> bool:
        """Add the step out = function(left, right), for numpy.add, subtract or multiply.

        What does not lie in the workspace is a constant: it is copied, repeated to the shape of `out`. False, and
        nothing is added, where it is another function, or one that the kernel cannot take: the others have to be of the
        shape of `out`, which is contiguous, in rows of contiguous values at a constant distance.
        """
        return function in _OPERATIONS and self._add(_OPERATIONS[function], left, right, out)

    def copy(self, source: Values, out: Values) -> bool:
        """Add the step out = source; False under the conditions of `compute`."""
        return self._add(_COPY, source, source, out)

    def round(self, values: Values, format: Format) -> None:  # noqa: A002 (named as in round_to)
        """Add the step of rounding a contiguous view to nearest even, in place: `round_to` without options."""
        self._steps.append((_ROUND, self._offset(values), len(self._rows), 0, 1, values.size, 0, 0))
        self._rows.append(parameters(format, "nearest-even", False))

    def finish(self) -> Callable[[], None]:
        """The program as it stands, ready to be called again and again. Releases the GIL."""
        table = np.array(self._steps, np.int64).reshape(-1, 8)
        formats = np.zeros((len(self._rows), max((row.size for row in self._rows), default=0)), np.uint32)
        for row, given in zip(formats, self._rows, strict=True):
            row[: given.size] = given
        constants = np.concatenate([np.zeros(0, np.float32), *self._constants])
        values, patterns = self._values, self._patterns
        return lambda: _run(values, patterns, constants, table, formats)

    def _add(self, operation: int, left: Values, right: Values, out: Values) -> bool:
        if not all(each.dtype == np.float32 for each in (left, right, out)) or not out.flags.c_contiguous:
            return False
        if not all(each.shape == out.shape for each in (left, right) if self._holds(each)):
            return False
        left, right = (
            each if self._holds(each) else np.ascontiguousarray(np.broadcast_to(each, out.shape))
            for each in (left, right)
        )
        layouts = [_rows_of(left), _rows_of(right)]
        strided = {(count, length) for count, length, _ in filter(None, layouts) if count > 1}
        if None in layouts or len(strided) > 1:
            return False
        count, length = strided.pop() if strided else (1, out.size)
        distances = [distance if rows > 1 else length for rows, _, distance in filter(None, layouts)]
        places = [self._offset(each) if self._holds(each) else self._constant(each) for each in (out, left, right)]
        self._steps.append((operation, *places, count, length, *distances))
        return True

    def _holds(self, view: Values) -> bool:
        return 0 <= self._offset(view) < self._values.size

    def _offset(self, view: Values) -> int:
        start = view.__array_interface__["data"][0] - self._values.__array_interface__["data"][0]
        return int(start // _BYTES)

    def _constant(self, array: Values) -> int:
        """Where a constant lies, as the table says it: -1 and less."""
        place = sum(each.size for each in self._constants)
        self._constants.append(array.reshape(-1))
        return -1 - place


def _rows_of(view: Values) -> tuple[int, int, int] | None:
    """A view as rows of contiguous values at a constant distance: (rows, values in each, distance in values)."""
    length, axis = 1, view.ndim
    while axis and (view.shape[axis - 1] == 1 or view.strides[axis - 1] == length * _BYTES):
        axis -= 1
        length *= view.shape[axis]
    count, distance = 1, length
    while axis:
        axis -= 1
        if view.shape[axis] == 1:
            continue
        if count == 1:
            distance = view.strides[axis] // _BYTES
        elif view.strides[axis] != count * distance * _BYTES:
            return None
        count *= view.shape[axis]
    return count, length, distance


@compiled
def _run(values: Any, patterns: Any, constants: Any, table: Any, formats: Any) -> None:
    """`patterns` are the bits of `values`. A row of the table: operation, offsets of the result and of the operands,
    rows, values in each, distances of the operands' rows. Offset -1 - k is that of constant k; for a rounding the
    second offset is a row of `formats`."""
    for k in range(table.shape[0]):
        operation, out, left, right = table[k, 0], table[k, 1], table[k, 2], table[k, 3]
        count, length = table[k, 4], table[k, 5]
        if operation == _ROUND:
            round_run(patterns[out : out + length], formats[left])
            continue
        for row in range(count):
            result = values[out + row * length : out + (row + 1) * length]
            first = (left if left >= 0 else -1 - left) + row * table[k, 6]
            second = (right if right >= 0 else -1 - right) + row * table[k, 7]
            a = (values if left >= 0 else constants)[first : first + length]
            b = (values if right >= 0 else constants)[second : second + length]
            if operation == _ADD:
                for i in range(length):
                    result[i] = a[i] + b[i]
            elif operation == _SUBTRACT:
                for i in range(length):
                    result[i] = a[i] - b[i]
            elif operation == _MULTIPLY:
                for i in range(length):
                    result[i] = a[i] * b[i]
            else:
                for i in range(length):
                    result[i] = a[i]
