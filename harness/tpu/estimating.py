"""What a TPU core would need for a step, estimated from its unoptimised XLA program alone, without a TPU's compiler.

The program is fused, laid out and ordered by rules that imitate the compiler's:

- Elementwise and shape-only instructions, batch normalization included, are computed again wherever they are read,
  unless keeping their result moves no more bytes. So an activation is kept as the output of its convolution, and once
  more where a residual sum is read often.
- Pooling and sorting read buffers, not expressions. A convolution reads an operand whose two minor dimensions are batch
  and features; the video, which arrives in another layout, is copied once and kept.
- The two minor dimensions are padded to tiles of 8 x 128, vectors and scalars to at least 1024 bytes.
- The order is greedy: next is what frees most and allocates least.

CALIBRATION
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any

from google.protobuf import message
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from harness.experiment import SettingsError

_ITEM_BYTES = {
    getattr(xla_data_pb2, name): size
    for size, names in {
        1: ("PRED", "S4", "U4", "S8", "U8", "F8E5M2", "F8E4M3FN"),
        2: ("S16", "U16", "F16", "BF16"),
        4: ("S32", "U32", "F32"),
        8: ("S64", "U64", "F64", "C64"),
        16: ("C128",),
    }.items()
    for name in names
}
# No value in memory: the compiler computes it where it is read.
_FREE = {"constant", "iota", "after-all", "partition-id", "replica-id"}
# The same value under another shape or name.
_VIEWS = {"bitcast", "copy", "get-tuple-element", "optimization-barrier", "reshape", "tuple"}
_ELEMENTWISE = set(
    "abs add and atan2 batch-norm-inference bitcast-convert broadcast cbrt ceil clamp compare complex concatenate "
    "convert cosine count-leading-zeros divide dynamic-slice dynamic-update-slice erf exponential "
    "exponential-minus-one floor imag is-finite log log-plus-one logistic map maximum minimum multiply negate not or "
    "pad popcnt power real reduce-precision remainder reverse round-nearest-afz round-nearest-even rsqrt select "
    "set-dimension-size shift-left shift-right-arithmetic shift-right-logical sign sine slice sqrt subtract tan tanh "
    "transpose xor".split()
)
_FUSED = _FREE | _VIEWS | _ELEMENTWISE
_NORMALIZATIONS = {"batch-norm-training", "batch-norm-grad"}
_REDUCTIONS = _NORMALIZATIONS | {"reduce"}
_CALLING = {"while", "conditional", "call"}
# Instructions whose operands are buffers; all others compute them on the fly, or take their place.
_READS_BUFFERS = {"reduce-window", "select-and-scatter", "sort", "scatter", "gather", "custom-call", "fft", "cholesky"}
_LANES, _SUBLANES, _VECTOR_BYTES = 128, 8, 1024
# Readers are told apart up to this number; three decide where a result is read from two buffers.
_READERS = 8


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one core holds and does in a step.

    Attributes:
      arguments, outputs, aliased: bytes of what enters, of what leaves, and of the outputs that take an argument's
        place, padded as a TPU pads.
      temporaries: most bytes of intermediate results at one time.
      bytes_moved: read from and written to memory by all instructions, after fusing.
      flops: of convolutions and matrix products alone, two for a multiplication and an addition.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    bytes_moved: int
    flops: int


@dataclasses.dataclass
class _Node:
    """An instruction: what it reads, and whether its result has a buffer.

    Attributes:
      opcode: HLO's.
      operands: indices of nodes.
      shape: HLO's ShapeProto.
      minor: the two dimensions that are laid out minor; None where nothing demands any.
      kept: whether the result has a buffer.
      bytes: of the result, padded.
      owned: of them, bytes of intermediate results; none where the buffer is an argument, an output or a loop's own.
      reads: indices of the kept nodes that are read to compute it.
      inner: most bytes of intermediate results in the computations that it calls.
    """

    opcode: str
    operands: list[int]
    shape: Any
    minor: frozenset[int] | None = None
    kept: bool = False
    output: bool = False
    bytes: int = 0
    reads: frozenset[int] = frozenset()
    inner: int = 0

    @property
    def fused(self) -> bool:
        return self.opcode in _FUSED

    @property
    def owned(self) -> int:
        return 0 if self.output or self.opcode == "parameter" else self.bytes


def estimate(hlo: bytes) -> Estimate:
    """Memory, traffic and work of a program.

    Args:
      hlo: serialized HloModuleProto, unoptimised, as TensorFlow's `experimental_get_compiler_ir` gives it for the
        stage "hlo_serialized".

    Raises:
      SettingsError: if `hlo` is no such module.
    """
    module = _parse(hlo)
    program = _Program({computation.id: computation for computation in module.computations})
    entry = program.computations[module.entry_computation_id]
    arguments = [i.shape for i in entry.instructions if i.opcode == "parameter"]
    root = next(i.shape for i in entry.instructions if i.id == entry.root_id)
    results = list(root.tuple_shapes) or [root]
    aliased = [results[alias.output_shape_index[0]] for alias in module.input_output_alias.entries]
    return Estimate(
        arguments=sum(map(_bytes, arguments)),
        outputs=sum(map(_bytes, results)) + _up(4 * len(root.tuple_shapes), _VECTOR_BYTES),
        aliased=sum(map(_bytes, aliased)),
        temporaries=program.peak(module.entry_computation_id),
        bytes_moved=program.moved,
        flops=program.flops,
    )


def _parse(hlo: bytes) -> Any:
    try:
        module = hlo_pb2.HloModuleProto.FromString(hlo)
    except message.DecodeError:
        module = None
    if module is None or module.entry_computation_id not in {c.id for c in module.computations}:
        raise SettingsError(f"no estimate from these {len(hlo)} bytes: expected a serialized HLO module")
    return module


@dataclasses.dataclass
class _Program:
    """The computations of a module, and totals over those that were visited.

    Attributes:
      computations: id -> HLO's HloComputationProto.
      moved: bytes.
      flops: of convolutions and matrix products.
    """

    computations: dict[int, Any]
    moved: int = 0
    flops: int = 0

    def peak(self, computation: int) -> int:
        """Most bytes of intermediate results at one time in a computation, whose traffic and work are added."""
        nodes = self._nodes(self.computations[computation])
        _fuse(nodes)
        groups = [index for index, node in enumerate(nodes) if node.kept and node.opcode != "parameter"]
        self.moved += sum(_moved(nodes, group) for group in groups)
        return _peak(nodes, groups)

    def _nodes(self, computation: Any) -> list[_Node]:
        nodes: list[_Node] = []
        index: dict[int, int] = {}
        for instruction in computation.instructions:
            node = _Node(instruction.opcode, [index[operand] for operand in instruction.operand_ids], instruction.shape)
            if instruction.opcode == "get-tuple-element":
                _select(nodes, node, instruction.tuple_index)
            if instruction.opcode in _CALLING:
                node.inner = max(map(self.peak, instruction.called_computation_ids))
            if instruction.opcode in ("convolution", "dot"):
                self.flops += _flops(instruction, [nodes[operand].shape for operand in node.operands])
            if instruction.opcode == "convolution":
                _lay_out(nodes, node, instruction.convolution_dimension_numbers)
            index[instruction.id] = len(nodes)
            nodes.append(node)
        root = index[computation.root_id]
        for result in nodes[root].operands if nodes[root].opcode == "tuple" else [root]:
            base = _base(nodes, result)
            nodes[base].output = nodes[base].kept = True
        return nodes


def _select(nodes: Sequence[_Node], node: _Node, element: int) -> None:
    """Lets an element of a tuple read that element alone; of a normalization, the statistics and what it normalizes."""
    source = nodes[node.operands[0]]
    if source.opcode == "tuple":
        node.operands = [source.operands[element]]
    elif source.opcode in _NORMALIZATIONS and element == 0:
        node.opcode = "batch-norm-inference"
        node.operands = [source.operands[0], *source.operands[4:5], *node.operands]


def _lay_out(nodes: Sequence[_Node], node: _Node, numbers: Any) -> None:
    """Notes the layout of a convolution's result, and which its operands have to come in."""
    node.minor = frozenset((numbers.output_batch_dimension, numbers.output_feature_dimension))
    for operand, minor in zip(
        node.operands,
        (
            (numbers.input_batch_dimension, numbers.input_feature_dimension),
            (numbers.kernel_input_feature_dimension, numbers.kernel_output_feature_dimension),
        ),
        strict=True,
    ):
        if nodes[operand].minor is None:
            nodes[operand].minor = frozenset(minor)


def _base(nodes: Sequence[_Node], index: int) -> int:
    """The node whose value this one shows, perhaps in another shape."""
    while nodes[index].opcode in _VIEWS and len(nodes[index].operands) == 1:
        index = nodes[index].operands[0]
    return index


def _fuse(nodes: list[_Node]) -> None:
    """Decides which results are kept, and fills in layouts, sizes and reads."""
    users = _users(nodes)
    readers = _readers(nodes, users)
    demanded = {_base(nodes, operand) for node in nodes if node.opcode in _READS_BUFFERS for operand in node.operands}
    for index, node in enumerate(nodes):
        demand, node.minor = node.minor, node.minor or _inherited(nodes, node)
        relaid = node.fused and demand is not None and _inherited(nodes, node) != demand
        node.bytes = _size(nodes, node)
        if not node.fused:
            node.kept = True
        node.reads = frozenset(
            itertools.chain.from_iterable(
                (operand,) if nodes[operand].kept else nodes[operand].reads for operand in node.operands
            )
        )
        if node.kept or not node.reads or node.opcode in _VIEWS - {"copy"} and not relaid:
            continue
        node.kept = relaid or index in demanded or _worth_keeping(nodes, index, users[index], readers[index])


def _users(nodes: Sequence[_Node]) -> list[list[int]]:
    users: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for operand in node.operands:
            users[operand].append(index)
    return users


def _readers(nodes: Sequence[_Node], users: Sequence[Sequence[int]]) -> list[int]:
    """How many instructions with a buffer of their own read each result, directly or through fused ones."""
    readers: list[set[int]] = [set() for _ in nodes]
    for index in reversed(range(len(nodes))):
        for user in users[index]:
            if len(readers[index]) >= _READERS:
                break
            readers[index] |= {user} if nodes[user].kept or not nodes[user].fused else readers[user]
    return [len(found) for found in readers]


def _inherited(nodes: Sequence[_Node], node: _Node) -> frozenset[int] | None:
    """Layout of the first operand of the same size; an argument's own."""
    dimensions = list(node.shape.dimensions)
    if node.opcode == "parameter" and len(dimensions) > 1:
        return _compact(tuple(dimensions), _item_bytes(node.shape))[1]
    same = (nodes[o].minor for o in node.operands if len(nodes[o].shape.dimensions) == len(dimensions))
    return next((minor for minor in same if minor is not None), None)


def _worth_keeping(nodes: Sequence[_Node], index: int, users: Sequence[int], readers: int) -> bool:
    """Whether to write a result once and read it, rather than to read its operands for every reader, moves no more."""
    node = nodes[index]
    if len(users) == 1 and nodes[users[0]].fused and _size(nodes, nodes[users[0]]) <= node.bytes:
        return False
    operands = sum(nodes[read].bytes for read in node.reads)
    return operands + (1 + readers) * node.bytes <= readers * operands


def _size(nodes: Sequence[_Node], node: _Node) -> int:
    """Bytes of a result; of a normalization only its statistics, of a loop only what it changes."""
    if node.opcode in _NORMALIZATIONS:
        return sum(map(_bytes, node.shape.tuple_shapes[1:]))
    if node.opcode == "while" and nodes[node.operands[0]].opcode == "tuple":
        initial = (_base(nodes, element) for element in nodes[node.operands[0]].operands)
        own = (nodes[element].opcode != "parameter" for element in initial)
        return sum(_bytes(shape) for shape in itertools.compress(node.shape.tuple_shapes, own))
    return _bytes(node.shape, node.minor)


def _moved(nodes: Sequence[_Node], group: int) -> int:
    """Bytes that one instruction reads and writes, with what is fused into it.

    A reduction is computed while its newest operand is written, when that is a convolution's or a product's result.
    """
    node = nodes[group]
    reads = set(node.reads)
    if node.opcode in _REDUCTIONS:
        newest = max(reads, default=group)
        if nodes[newest].opcode in ("convolution", "dot"):
            reads.discard(newest)
    return node.bytes + sum(nodes[read].bytes for read in reads)


def _peak(nodes: Sequence[_Node], groups: Sequence[int]) -> int:
    """Most bytes alive at one time, when next is always what frees most and allocates least."""
    waiting = {group: sum(nodes[read].opcode != "parameter" for read in nodes[group].reads) for group in groups}
    readers: dict[int, set[int]] = collections.defaultdict(set)
    for group in groups:
        for read in nodes[group].reads:
            readers[read].add(group)

    def growth(group: int) -> int:
        freed = sum(nodes[read].owned for read in nodes[group].reads if len(readers[read]) == 1)
        return nodes[group].owned - freed

    ready = [(growth(group), group) for group in groups if not waiting[group]]
    heapq.heapify(ready)
    alive = peak = 0
    done: set[int] = set()
    while ready:
        _, group = heapq.heappop(ready)
        if group in done:
            continue
        done.add(group)
        peak = max(peak, alive + nodes[group].owned + nodes[group].inner)
        alive += growth(group)
        for read in nodes[group].reads:
            readers[read].discard(group)
            if len(readers[read]) == 1:
                last = next(iter(readers[read]))
                if not waiting[last]:
                    heapq.heappush(ready, (growth(last), last))
        for reader in readers[group]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (growth(reader), reader))
    return peak


def _bytes(shape: Any, minor: frozenset[int] | None = None) -> int:
    """Bytes of an array, padded to tiles; of a tuple, of its elements.

    Args:
      shape: HLO's ShapeProto.
      minor: the two minor dimensions; those that pad least when None.
    """
    if shape.tuple_shapes:
        return sum(map(_bytes, shape.tuple_shapes))
    if len(shape.dimensions) < 2:
        return _vector_bytes(math.prod(shape.dimensions), _item_bytes(shape))
    return _compact(tuple(shape.dimensions), _item_bytes(shape), minor)[0]


def _item_bytes(shape: Any) -> int:
    return _ITEM_BYTES.get(shape.element_type, 0)


def _vector_bytes(elements: int, item: int) -> int:
    """A vector's tile grows with it, from 1024 bytes to 1024 elements."""
    smallest = _VECTOR_BYTES // max(item, 1)
    tile = min(max(1 << (elements - 1).bit_length(), smallest), 1024) if elements else smallest
    return _up(elements, tile) * item or 0


@functools.cache
def _compact(dimensions: tuple[int, ...], item: int, minor: frozenset[int] | None = None) -> tuple[int, frozenset[int]]:
    """Fewest bytes of an array over the layouts, and the two minor dimensions that give it; the last two when equal."""
    candidates = minor if minor is not None and len(minor) == 2 else range(len(dimensions))
    pairs = itertools.permutations(sorted(candidates, reverse=True), 2)
    return min(
        ((_tiled(dimensions, item, lanes, sublanes), frozenset((lanes, sublanes))) for lanes, sublanes in pairs),
        key=lambda layout: layout[0],
    )


def _tiled(dimensions: Sequence[int], item: int, lanes: int, sublanes: int) -> int:
    fewest = max(2, 4 // max(item, 1))
    rows = min(max(1 << (dimensions[sublanes] - 1).bit_length(), fewest), _SUBLANES) if dimensions[sublanes] else 1
    others = math.prod(size for index, size in enumerate(dimensions) if index not in (lanes, sublanes))
    return others * _up(dimensions[lanes], _LANES) * _up(dimensions[sublanes], rows) * item


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _flops(instruction: Any, operands: Sequence[Any]) -> int:
    if instruction.opcode == "dot":
        contracted = instruction.dot_dimension_numbers.lhs_contracting_dimensions
        return 2 * math.prod(instruction.shape.dimensions) * math.prod(operands[0].dimensions[d] for d in contracted)
    numbers = instruction.convolution_dimension_numbers
    positions = math.prod(
        _positions(
            operands[0].dimensions[of_input],
            instruction.shape.dimensions[of_output],
            (w.size, w.stride, w.padding_low, w.base_dilation or 1, w.window_dilation or 1),
        )
        for w, of_input, of_output in zip(
            instruction.window.dimensions,
            numbers.input_spatial_dimensions,
            numbers.output_spatial_dimensions,
            strict=True,
        )
    )
    batch = instruction.shape.dimensions[numbers.output_batch_dimension]
    features = instruction.shape.dimensions[numbers.output_feature_dimension]
    return 2 * positions * batch * features * operands[1].dimensions[numbers.kernel_input_feature_dimension]


@functools.cache
def _positions(size: int, outputs: int, window: tuple[int, int, int, int, int]) -> int:
    """Pairs of an output and a kernel position that meet an input, in one dimension; padding and holes are none."""
    kernel, stride, padding, dilation, spacing = window
    reached = (o * stride + k * spacing - padding for o in range(outputs) for k in range(kernel))
    return sum(0 <= at <= (size - 1) * dilation and at % dilation == 0 for at in reached)
