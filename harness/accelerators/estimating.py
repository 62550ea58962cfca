"""What a TPU core would need for a step, estimated from its unoptimised XLA program alone, without a TPU's compiler.

The program is fused, laid out and put in order by rules that imitate the compiler's:

- What is elementwise or only changes shapes, normalization included, is computed again wherever it is read; kept are
  results with several readers that are computed from several others of their size. So an activation is saved for the
  backward pass as its convolution's output, before normalization, and once more as a residual sum.
- A convolution or matrix product, and a reduction of its result, is computed together with what is elementwise around
  it. Pooling, sorting and sums over replicas read buffers.
- A convolution's operand has batch and features as its minor dimensions. What arrives otherwise, as the video does, is
  copied, and the copy is kept for the backward pass.
- The two minor dimensions are padded to tiles of 8 x 128, vectors and scalars to 1024 bytes.
- Next in the order is what frees most and allocates least.

Estimates over what the compiler of libtpu 0.0.52 says for one core of a v3, bfloat16, eight clips a core in training
and 30 views of one video in evaluation (arguments, outputs and aliased bytes of the R3D-50s agree to the byte):

============================ =========== =========== =====
program                      temporaries bytes moved flops
============================ =========== =========== =====
R3D-50 16x224x224, train            0.99        1.08  0.98
R3D-RS-50 16x224x224, train         0.98        0.98  0.97
R3D-RS-200 24x224x224, train        1.00        0.97  0.98
R3D-RS-50 16x256x256, eval          0.88        1.10  0.99
============================ =========== =========== =====

The rules were chosen while looking at these four programs, so another may fit less well: small networks of 6 to 10
convolutions came out at 0.96 to 1.10 (temporaries) and 1.03 to 1.19 (bytes moved), and what fits into on-chip memory,
as no training of a video does, takes no temporaries at all there. Left out are the compiler's scratch memory,
fragmentation, rematerialization, on-chip memory, collectives combined into one, and other layouts that it may choose.
Loops' bodies and all branches of conditions count once in bytes and operations, however often they run.
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

from google.protobuf import message  # type: ignore[import-untyped]
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from harness.config.experiment import SettingsError

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
# The same value under another shape or name.
_VIEWS = {"bitcast", "copy", "get-tuple-element", "optimization-barrier", "reshape", "tuple"}
_NORMALIZATIONS = {"batch-norm-training", "batch-norm-grad"}
_REDUCTIONS = _NORMALIZATIONS | {"reduce"}
_PRODUCTS = {"convolution", "dot"}
_CALLING = {"while", "conditional", "call"}
_SOURCES = {"parameter", "infeed", "recv", "rng", "rng-bit-generator", "rng-get-and-update-state"}
_READS_BUFFERS = {"reduce-window", "select-and-scatter", "gather", "scatter", "sort", "custom-call"}
_READS_BUFFERS |= {"all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "outfeed", "send"}
_READS_BUFFERS |= {"cholesky", "fft", "triangular-solve"}
# All other instructions of HLO are elementwise or change shapes, and are computed where they are read.
_BUFFERED = _REDUCTIONS | _PRODUCTS | _CALLING | _SOURCES | _READS_BUFFERS
_LANES, _SUBLANES, _VECTOR_BYTES = 128, 8, 1024


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
      output: whether that buffer is the computation's result, which it does not count among its temporaries.
      bytes: of the result, padded.
      reads: indices of the kept nodes that are read to compute it.
      inner: most bytes of temporaries in the computations that it calls.
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
        """Whether others can compute it on the fly."""
        return self.opcode not in _BUFFERED

    @property
    def temporary(self) -> int:
        """Bytes that it adds to the temporaries."""
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
    aliased = [results[sum(alias.output_shape_index[:1])] for alias in module.input_output_alias.entries]
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
        for instruction in _live(computation):
            node = _Node(instruction.opcode, [index[operand] for operand in instruction.operand_ids], instruction.shape)
            if instruction.opcode == "get-tuple-element":
                _select(nodes, node, instruction.tuple_index)
            if instruction.opcode in _CALLING:
                node.inner = max(map(self.peak, instruction.called_computation_ids))
            if instruction.opcode in _PRODUCTS:
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


def _live(computation: Any) -> list[Any]:
    """Instructions that the root depends on, operands first, as HLO stores them."""
    needed = {computation.root_id}
    for instruction in reversed(computation.instructions):
        if instruction.id in needed:
            needed.update(instruction.operand_ids)
    return [i for i in computation.instructions if i.id in needed]


def _select(nodes: Sequence[_Node], node: _Node, element: int) -> None:
    """Makes an element of a tuple read that alone; of a normalization, what it normalizes and its statistics."""
    source = nodes[node.operands[0]]
    if source.opcode == "tuple":
        node.operands = [source.operands[element]]
    elif source.opcode == "parameter":
        node.opcode, node.operands = "parameter", []
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
        if nodes[operand].minor is None and nodes[operand].opcode != "parameter":
            nodes[operand].minor = frozenset(minor)


def _base(nodes: Sequence[_Node], index: int) -> int:
    """The node whose value this one shows, perhaps in another shape."""
    while nodes[index].opcode in _VIEWS and len(nodes[index].operands) == 1:
        index = nodes[index].operands[0]
    return index


def _fuse(nodes: Sequence[_Node]) -> None:
    """Decides which results are kept, and fills in layouts, sizes and reads."""
    users = _users(nodes)
    shared = _shared(nodes, users)
    buffers = {_base(nodes, operand) for node in nodes if node.opcode in _READS_BUFFERS for operand in node.operands}
    for index, node in enumerate(nodes):
        arriving = _inherited(nodes, node)
        relaid = node.minor is not None and node.minor != arriving
        node.minor = node.minor or arriving
        node.bytes = _size(nodes, node)
        node.reads = frozenset().union(*({o} if nodes[o].kept else nodes[o].reads for o in node.operands))
        if not node.fused:
            node.kept = True
        elif node.reads and not node.kept:
            node.kept = relaid or index in buffers or (shared[index] and _worth_keeping(nodes, node, users[index]))
    _absorb(nodes)


def _absorb(nodes: Sequence[_Node]) -> None:
    """Computes an elementwise result along with the newest product that only it reads, which then needs no buffer."""
    reading = collections.Counter(read for node in nodes if node.kept for read in node.reads)
    for node in nodes:
        alone = [r for r in node.reads if nodes[r].opcode in _PRODUCTS and reading[r] == 1 and not nodes[r].output]
        if node.kept and node.fused and alone:
            product = max(alone)
            nodes[product].kept = False
            node.reads = node.reads - {product} | nodes[product].reads


def _users(nodes: Sequence[_Node]) -> list[list[int]]:
    users: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for operand in node.operands:
            users[operand].append(index)
    return users


def _shared(nodes: Sequence[_Node], users: Sequence[Sequence[int]]) -> list[bool]:
    """Whether several results with a buffer of their own are computed from each, directly or through fused ones."""
    readers: list[list[int]] = [[] for _ in nodes]
    for index in reversed(range(len(nodes))):
        found = (readers[u] if nodes[u].fused and not nodes[u].kept else [u] for u in users[index])
        readers[index] = sorted(set(itertools.chain.from_iterable(found)))[:2]
    return [len(found) > 1 for found in readers]


def _inherited(nodes: Sequence[_Node], node: _Node) -> frozenset[int] | None:
    """Layout of the first operand of the same rank; an argument's own."""
    dimensions = list(node.shape.dimensions)
    if node.opcode == "parameter" and len(dimensions) > 1:
        return _compact(tuple(dimensions), _item_bytes(node.shape))[1]
    same = (nodes[o].minor for o in node.operands if len(nodes[o].shape.dimensions) == len(dimensions))
    return next((minor for minor in same if minor is not None), None)


def _worth_keeping(nodes: Sequence[_Node], node: _Node, users: Sequence[int]) -> bool:
    """Whether a result with several readers takes more reading to compute again than to read."""
    if node.opcode in _VIEWS or sum(nodes[read].bytes >= node.bytes for read in node.reads) < 2:
        return False
    # A result that is used once, and for one no larger, is better kept as that.
    return len(users) > 1 or not nodes[users[0]].fused or _unpadded(nodes[users[0]].shape) > _unpadded(node.shape)


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

    A reduction is computed along with its newest operand, and shares what that reads.
    """
    node = nodes[group]
    reads = node.reads
    computed = [read for read in reads if nodes[read].opcode != "parameter"]
    if node.opcode in _REDUCTIONS and computed:
        newest = max(computed)
        reads = reads - {newest} - nodes[newest].reads
    return node.bytes + sum(nodes[read].bytes for read in reads)


def _peak(nodes: Sequence[_Node], groups: Sequence[int]) -> int:
    """Most bytes of temporaries at one time, when next is always what frees most and allocates least."""
    waiting = {group: sum(nodes[read].opcode != "parameter" for read in nodes[group].reads) for group in groups}
    readers: dict[int, set[int]] = {index: set() for index in range(len(nodes))}
    for group in groups:
        for read in nodes[group].reads:
            readers[read].add(group)

    def growth(group: int) -> int:
        freed = sum(nodes[read].temporary for read in nodes[group].reads if readers[read] == {group})
        return nodes[group].temporary * bool(readers[group]) - freed

    ready = [(growth(group), group) for group in groups if not waiting[group]]
    heapq.heapify(ready)
    alive = peak = 0
    done: set[int] = set()
    while ready:
        _, group = heapq.heappop(ready)
        if group in done:
            continue  # It was queued again when it became the last reader of something.
        done.add(group)
        peak = max(peak, alive + nodes[group].temporary + nodes[group].inner)
        alive += growth(group)
        for reader in readers[group]:
            waiting[reader] -= 1
        for read in nodes[group].reads:
            readers[read].discard(group)
        last = {reader for read in nodes[group].reads if len(readers[read]) == 1 for reader in readers[read]}
        for reader in last | readers[group]:
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


def _unpadded(shape: Any) -> int:
    return math.prod(shape.dimensions) * _item_bytes(shape)


def _item_bytes(shape: Any) -> int:
    return _ITEM_BYTES.get(shape.element_type, 0)


def _vector_bytes(elements: int, item: int) -> int:
    """A vector's tile grows with it, from 1024 bytes to 1024 elements."""
    smallest = _VECTOR_BYTES // min(max(item, 1), 4)
    tile = min(max(1 << (elements - 1).bit_length(), smallest), 1024) if elements else smallest
    return _up(elements, tile) * item


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
