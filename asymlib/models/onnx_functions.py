"""What of the last word no traced graph can hold, since it loops as often as the picture says or solves equations: as
functions of ONNX, which `export.export_onnx` puts in the place of torch's.

Types carry no sizes: equal names of sizes would be taken as equal sizes wherever a function is used.
"""

import torch
from onnxscript import DOUBLE, FLOAT, INT64, script
from onnxscript import opset18 as op

FAR = 1e9  # a squared distance beyond that of any picture
REACH = 64.0**2  # of a known pixel; nothing looks that far away from the hole


@script(default_opset=op)
def spread(squares: FLOAT[...]) -> FLOAT[...]:
    """Squares of distances, (N, C, H, W), carried along columns, a pixel at a time until nothing changes.

    Source: a parabola is a chain of small erosions (Huang and Mitchell 1994).
    """
    step = op.Constant(value_float=1.0)
    changed = step > 0.0
    while changed:
        nearer = op.Min(squares, step - op.MaxPool(-squares, kernel_shape=[3, 1], pads=[1, 0, 1, 0]))
        changed = op.ReduceMax(op.Cast(nearer < squares, to=FLOAT.dtype), keepdims=0) > 0.0
        squares = op.Identity(nearer)
        step = step + 2.0
    return squares


@script(default_opset=op)
def carried(error: FLOAT[...], known: FLOAT[...]) -> FLOAT[...]:
    """`last_word.carried`: its levels go from fine to coarse into sequences, and are filled from coarse to fine."""
    filled, there = op.Identity(error), op.Identity(known)
    errors, masks = op.SequenceEmpty(), op.SequenceEmpty()
    coarser = op.ReduceMin(op.Shape(there, start=2, end=4), keepdims=0) > 1
    while coarser:
        errors, masks = op.SequenceInsert(errors, there * filled), op.SequenceInsert(masks, there)
        before = op.Constant(value_ints=[0, 0, 0, 0, 0, 0])
        even = op.Concat(before, op.Mod(op.Shape(there, start=2, end=4), 2), axis=0)
        share = op.AveragePool(op.Pad(there, even), kernel_shape=[2, 2], strides=[2, 2])
        coarse = op.AveragePool(op.Pad(there * filled, even), kernel_shape=[2, 2], strides=[2, 2])
        filled = coarse / op.Max(share, 1e-6)
        there = op.Cast(share > 0.0, to=FLOAT.dtype)
        coarser = op.ReduceMin(op.Shape(there, start=2, end=4), keepdims=0) > 1
    mean = op.ReduceSum(there * filled, [2, 3]) / op.Max(op.ReduceSum(there, [2, 3]), 1e-6)
    filled = there * filled + (1.0 - there) * mean
    level = op.SequenceLength(errors) - 1
    finer = level >= 0
    while finer:
        own, there = op.SequenceAt(errors, level), op.SequenceAt(masks, level)
        filled = own + (1.0 - there) * op.Resize(filled, None, None, op.Shape(own), mode="linear")
        level = level - 1
        finer = level >= 0
    return filled


@script(default_opset=op)
def solved(a: DOUBLE[...], b: DOUBLE[...]) -> DOUBLE[...]:
    """x of `a` @ x = `b`, (N, T, T) and (N, T, K), by Gauss and Jordan; no pivots, since `a` is positive definite."""
    rows = op.Concat(a, b, axis=2)
    size = op.Shape(a, start=1, end=2)
    places = op.Range(0, op.Squeeze(size), 1)
    for i in range(op.Squeeze(size)):
        pivot = op.Reshape(i, [1])
        row = op.Gather(rows, pivot, axis=1)
        row = row / op.Gather(row, pivot, axis=2)
        own = op.CastLike(op.Equal(places, i), rows)
        rows = rows - (op.Gather(rows, pivot, axis=2) - op.Unsqueeze(own, [0, 2])) * row
    return op.Slice(rows, size, op.Shape(rows, start=2, end=3), [2])


@script(default_opset=op)
def shares(cells: INT64[...], extent: INT64[...]) -> FLOAT[...]:
    """(cells, extent): how much each pixel counts in the mean of a cell."""
    places = op.Unsqueeze(op.Range(0, op.Squeeze(cells), 1), [1])
    start = places * extent / cells
    stop = ((places + 1) * extent + cells - 1) / cells
    pixels = op.Range(0, op.Squeeze(extent), 1)
    inside = op.Cast(op.And(pixels >= start, pixels < stop), to=FLOAT.dtype)
    return inside / op.Cast(stop - start, to=FLOAT.dtype)


def _distances(known):
    """`last_word.distances`: of hole pixels to the nearest known one, and of known ones to the hole, at most REACH."""
    other = op.Sub(op.Constant(value_float=1.0), known)
    squares = spread(op.Concat(op.Mul(other, FAR), op.Mul(known, REACH), axis=1))
    along_rows = op.Transpose(spread(op.Transpose(squares, perm=[0, 1, 3, 2])), perm=[0, 1, 3, 2])
    near = op.Split(along_rows, axis=1, num_outputs=2)
    far = op.Cast(op.ReduceSum(op.Shape(known, start=2, end=4)), to=FLOAT.dtype)
    return [op.Where(op.Less(side, FAR), op.Sqrt(side), far) for side in near]


def _adaptive_mean(pictures, size):
    cells = [op.Reshape(side, [1]) for side in size]
    down, along = (shares(n, op.Shape(pictures, start=2 + i, end=3 + i)) for i, n in enumerate(cells))
    return op.MatMul(op.MatMul(down, pictures), op.Transpose(along, perm=[1, 0]))


def _solve(a, b, **_):
    return (solved(a, b),)


FUNCTIONS = {
    torch.ops.asymlib.distances.default: _distances,
    torch.ops.asymlib.carried.default: carried,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_mean,
    torch.ops.aten._linalg_solve_ex.default: _solve,
}
