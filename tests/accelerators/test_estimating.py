"""Estimates of a step's memory, traffic and work: small programs against counts by hand."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.compiler.xla.service import hlo_pb2

from harness.accelerators import estimating
from harness.config.experiment import SettingsError

KIB = 1024


def estimate(function, *specs):
    compiled = tf.function(function, jit_compile=True)
    return estimating.estimate(compiled.experimental_get_compiler_ir(*specs)(stage="hlo_serialized"))


def spec(*shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype)


def test_chain_of_products():
    found = estimate(lambda x, a, b: x @ a @ b, spec(256, 512), spec(512, 384), spec(384, 128))
    x, a, b = 256 * 512 * 4, 512 * 384 * 4, 384 * 128 * 4
    between, result = 256 * 384 * 4, 256 * 128 * 4
    assert found.arguments == x + a + b
    assert found.outputs - result in (0, KIB)  # With or without a table of addresses.
    assert found.aliased == 0
    assert found.temporaries == between
    assert found.bytes_moved == x + a + between + between + b + result
    assert found.flops == 2 * 256 * 384 * (512 + 128)


@pytest.mark.parametrize(
    ("given", "padded"),
    [
        (spec(), KIB),
        (spec(dtype=tf.int64), 2 * KIB),
        (spec(3), KIB),
        (spec(300), 2 * KIB),
        (spec(1025), 8 * KIB),
        (spec(300, dtype=tf.bfloat16), KIB),
        (spec(8, 128), 4 * KIB),
        (spec(9, 129), 16 * 256 * 4),
        (spec(3, 129), 4 * 256 * 4),
        (spec(5, 130, dtype=tf.bfloat16), 8 * 256 * 2),
        (spec(256, 64), 64 * 256 * 4),  # Turned, no lane is empty.
        (spec(1, 3, 3, 64, 64), 9 * 64 * 128 * 4),
        (spec(2, 224, 256, 3, dtype=tf.uint8), 2 * 224 * 256 * 3),
    ],
)
def test_arguments_are_padded_to_tiles(given, padded):
    assert estimate(lambda x: tf.identity(x), given).arguments == padded


def test_updated_variable_takes_its_place():
    variable = tf.Variable(tf.zeros((128, 256)))

    def update(change):
        variable.assign_sub(0.1 * change)
        return tf.reduce_sum(change)

    found = estimate(update, spec(128, 256))
    size = 128 * 256 * 4
    assert found.arguments == 2 * size
    assert found.aliased == size
    assert found.outputs == size + KIB + KIB  # The variable, the sum and the table of the two.
    assert found.temporaries < size
    # Both read the change, and the update reads and writes the variable.
    assert 4 * size <= found.bytes_moved < 4 * size + 8 * KIB


def layers(count, channels, normalized=False, residual=False):
    kernels = [tf.Variable(tf.zeros((3, 3, channels, channels))) for _ in range(count)]
    ones, zeros = tf.ones(channels), tf.zeros(channels)

    def network(x):
        x = tf.cast(x, tf.bfloat16)
        for kernel in kernels:
            entering = x
            x = tf.nn.conv2d(x, tf.cast(kernel, tf.bfloat16), 1, "SAME")
            if normalized:
                x = tf.compat.v1.nn.fused_batch_norm(x, ones, zeros, is_training=True)[0]
            x = tf.nn.relu(x + entering if residual else x)
        return tf.reduce_sum(tf.cast(x, tf.float32))

    def train(x):
        with tf.GradientTape() as tape:
            loss = network(x)
        for kernel, gradient in zip(kernels, tape.gradient(loss, kernels), strict=True):
            kernel.assign_sub(gradient)

    return network, train


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("channels", [128, 64])
def test_training_saves_one_activation_a_layer(channels, normalized):
    images = spec(8, 32, 32, channels)
    five, six = (estimate(layers(count, channels, normalized)[1], images) for count in (5, 6))
    activation = 8 * 32 * 32 * 128 * 2  # 64 channels fill the 128 lanes half.
    # What is after the convolution, normalized or rectified, is computed from its result.
    assert activation <= six.temporaries - five.temporaries <= activation + 8 * KIB
    assert 6 * activation <= five.temporaries <= 9 * activation


def test_training_saves_residual_sums_too():
    images = spec(8, 32, 32, 128)
    five, six = (estimate(layers(count, 128, normalized=True, residual=True)[1], images) for count in (5, 6))
    activation = 8 * 32 * 32 * 128 * 2
    # To normalize backward takes the convolution's result, and to multiply or add what it is added to takes the sum.
    assert 2 * activation <= six.temporaries - five.temporaries <= 2 * activation + 8 * KIB


# Of libtpu 0.0.52 for one core of a v3: arguments, outputs, aliased, temporaries, bytes accessed, operations.
COMPILED = {
    (6, 64, True, True): (5965824, 1770496, 1769472, 25837568, 174726144, 10029692928),
    (6, 128, True, True): (7735296, 3539968, 3538944, 25837568, 181509120, 39749672960),
    (6, 128, True, False): (7735296, 3539968, 3538944, 17530880, 122820608, 39731847168),
    (10, 128, False, False): (10092544, 5899264, 5898240, 24526848, 143197184, 67363848192),
}


@pytest.mark.parametrize("network", COMPILED)
def test_agreement_with_the_compiler_of_tpus(network):
    found = estimate(layers(*network)[1], spec(8, 32, 32, network[1]))
    *exact, temporaries, moved, flops = COMPILED[network]
    assert [found.arguments, found.outputs, found.aliased] == exact
    assert found.temporaries == pytest.approx(temporaries, rel=0.15)
    assert found.bytes_moved == pytest.approx(moved, rel=0.2)
    assert found.flops == pytest.approx(flops, rel=0.02)


def test_video_is_laid_out_for_its_convolution():
    found = estimate(
        lambda x, a: tf.nn.conv2d(tf.cast(x, tf.bfloat16), a, 1, "SAME"),
        spec(8, 64, 64, 3, dtype=tf.uint8),
        spec(3, 3, 3, 128, dtype=tf.bfloat16),
    )
    # Three channels fill four rows, eight images 128 lanes.
    assert found.temporaries == 64 * 64 * 4 * 128 * 2


def test_reduction_is_computed_with_its_product():
    def product_and_sum(x, a):
        product = x @ a
        return product, tf.reduce_sum(product)

    found = estimate(product_and_sum, *[spec(256, 256)] * 2)
    assert 0 <= found.bytes_moved - 3 * 256 * 256 * 4 <= 4 * KIB


def test_pooling_reads_a_buffer():
    found = estimate(lambda x: tf.nn.max_pool2d(tf.exp(x), 2, 2, "VALID"), spec(8, 16, 16, 128))
    assert found.temporaries == 8 * 16 * 16 * 128 * 4


def test_inference_saves_nothing():
    images = spec(8, 32, 32, 128)
    few, many = (estimate(layers(count, 128)[0], images) for count in (3, 9))
    activation = 8 * 32 * 32 * 128 * 2
    assert few.temporaries == many.temporaries
    assert 2 * activation <= few.temporaries <= 3 * activation
    # A layer more reads one activation and writes one, and reads its kernel.
    assert many.bytes_moved - few.bytes_moved == 6 * (2 * activation + 9 * 128 * 128 * 4)


def test_sum_is_computed_with_its_last_product():
    found = estimate(lambda x, a, b, c: x + x @ a + x @ b + x @ c, *[spec(128, 128)] * 4)
    # The last product is added while it is computed; the other two wait in buffers.
    assert found.temporaries == 2 * 128 * 128 * 4


def test_operand_with_one_reader_needs_no_buffer():
    found = estimate(lambda x, y, a: (x + y) @ a, *[spec(128, 128)] * 3)
    assert found.temporaries == 0
    assert found.bytes_moved == 4 * 128 * 128 * 4


def test_branches_run_one_after_the_other():
    def network(x, a):
        return tf.add_n([tf.reduce_sum((x @ (a + float(i))) @ a) for i in range(6)])

    found = estimate(network, spec(512, 512), spec(512, 512))
    assert 2 * 512 * 512 * 4 <= found.temporaries < 3 * 512 * 512 * 4


def multiply_adds(size, outputs, stride, kernel=3):
    """Of one dimension, by enumeration: how often a kernel's position meets an input, padding "same"."""
    low = max((outputs - 1) * stride + kernel - size, 0) // 2
    return sum(0 <= o * stride + k - low < size for o in range(outputs) for k in range(kernel))


@pytest.mark.parametrize("stride", [1, 2])
def test_flops_of_convolutions_and_their_gradients(stride):
    def forward(x, a, b):
        return tf.reduce_sum(tf.nn.conv2d(tf.nn.conv2d(x, a, 1, "SAME"), b, stride, "SAME") ** 2)

    def gradients(x, a, b):
        with tf.GradientTape() as tape:
            tape.watch((a, b))
            loss = forward(x, a, b)
        return tape.gradient(loss, (a, b))

    specs = spec(4, 15, 14, 8), spec(3, 3, 8, 16), spec(3, 3, 16, 32)
    outputs = -(-15 // stride), -(-14 // stride)
    first = 2 * 4 * 8 * 16 * multiply_adds(15, 15, 1) * multiply_adds(14, 14, 1)
    second = 2 * 4 * 16 * 32 * multiply_adds(15, outputs[0], stride) * multiply_adds(14, outputs[1], stride)
    assert estimate(forward, *specs).flops == first + second
    # Each gradient takes the multiplications of the forward pass; the input's is not asked for.
    assert estimate(gradients, *specs).flops == 2 * first + 3 * second


def test_loop():
    def views(x, a):
        return tf.map_fn(lambda view: tf.reduce_max(view @ a) + tf.sort(view @ a), x)

    found = estimate(views, spec(10, 128, 256), spec(256, 256))
    results, products = 10 * 128 * 256 * 4, 128 * 256 * 4
    assert found.arguments == 10 * 128 * 256 * 4 + 256 * 256 * 4
    # The results are collected in one buffer; the loop's body needs some of one view's besides.
    assert found.temporaries <= results + 4 * products
    assert found.temporaries >= products
    # The body counts once, not ten times.
    assert found.flops == 2 * 2 * 128 * 256 * 256


def test_what_nobody_needs_costs_nothing():
    def network(x):
        tf.nn.relu(x @ x) @ x
        return x + 1.0

    found = estimate(network, spec(128, 128))
    assert (found.temporaries, found.flops) == (0, 0)
    assert found.bytes_moved == 2 * 128 * 128 * 4


@pytest.mark.parametrize("given", [b"", b"HloModule", hlo_pb2.HloModuleProto(name="step").SerializeToString()])
def test_other_bytes_are_refused(given):
    with pytest.raises(SettingsError, match="expected a serialized HLO module") as refused:
        estimating.estimate(given)
    assert "\n" not in str(refused.value)
