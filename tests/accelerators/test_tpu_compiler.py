"""The TPU compiler, and what is private of the libraries around it. Each part runs in a process of its own: jax stays
out of the process of the other tests, and a crash of the compiler is a failure of one test."""

import json
import subprocess
import sys
import textwrap

import pytest

from harness.accelerators import tpu_compiler
from harness.config import slices

pytestmark = pytest.mark.skipif(tpu_compiler.installed() is None, reason="needs pip install -e '.[preflight]'")


def run(code):
    code = "import os\nos.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


USED = [
    ("jaxlib._jax", "mlir.xla_computation_to_mlir_module"),
    ("jaxlib.xla_client", "XlaComputation"),
    ("jaxlib.xla_client", "CompileOptions"),
    ("jaxlib.xla_client", "DeviceAssignment.create"),
    ("jaxlib.xla_client", "DeviceList"),
    ("jax._src.interpreters.mlir", "make_ir_context"),
    ("jax._src.lib.mlir", "ir.Module.parse"),
    ("jax.experimental.topologies", "get_topology_desc"),
    ("jax.errors", "JaxRuntimeError"),
]


def test_what_is_used_of_jax_is_where_it_was():
    moved = run(
        f"""
        import functools, importlib, json

        def there(module, name):
            try:
                functools.reduce(getattr, name.split("."), importlib.import_module(module))
            except (ImportError, AttributeError):
                return False
            return True

        print(json.dumps([f"{{module}}.{{name}}" for module, name in {USED!r} if not there(module, name)]))
        """
    )
    assert not moved, f"harness/accelerators/tpu_compiler.py uses {', '.join(moved)}, which the installed jax has not"


PROGRAMS = """
    import json
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops
    from harness.config import slices
    from harness.accelerators import tpu_compiler as compiler

    def lowered(function, *shapes):
        specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        return tf.function(function, jit_compile=True).experimental_get_compiler_ir(*specs)(stage="hlo_serialized")

    def compiled(hlo, topology="v3:2x2", cores=1):
        try:
            found = compiler.compile_for(hlo, slices.slice_of(topology), cores)
        except (compiler.TooLargeError, compiler.RefusedError) as error:
            return [type(error).__name__, str(error)]
        memory = found.memory
        return [memory.arguments, memory.outputs, memory.aliased, memory.temporaries, memory.needed,
                found.operations, found.bytes_moved]
"""


# What is compiled for each test, all of it in one process: importing TensorFlow, jax and libtpu takes six seconds.
SNIPPETS = {
    "memory_and_operations_of_a_product_are_those_counted_by_hand": """
    found = compiled(lowered(lambda a, b: a @ b, [256, 512], [512, 1024]))
    found = found
    """,
    "a_variable_that_is_changed_keeps_its_place": """
    variable = tf.Variable(tf.zeros([1024, 1024]))
    def step(x):
        variable.assign_add(x)
        return tf.reduce_sum(x)
    found = compiled(lowered(step, [1024, 1024]))
    """,
    "cores_that_sum_over_all_of_a_slice_are_compiled_together": """
    def summed(x):
        return gen_xla_ops.xla_all_reduce(x, [list(range(8))], reduce_op="Add", mode="CrossReplica")
    found = [compiled(lowered(summed, [512, 512]), cores=8), compiled(lowered(summed, [512, 512]), cores=4)]
    """,
    "what_stays_on_the_chip_is_not_moved": """
    def chain(x, w):
        for _ in range(4):
            x = tf.nn.relu(tf.nn.conv2d(x, w, 1, "SAME"))
        return x
    hlo = lowered(chain, [8, 56, 56, 128], [3, 3, 128, 128])
    found = [compiled(hlo, "v5e:2x2"), compiled(hlo, "v3:2x2")]
    """,
    "what_does_not_fit_is_told_from_what_is_refused": """
    # 16 GiB a core on v3: one argument alone is 20 GB, and half of it is not.
    found = [compiled(lowered(lambda a: a + 1.0, [5, 10**9])), compiled(lowered(lambda a: a + 1.0, [10**9])),
                      compiled(lowered(lambda a: a + 1.0, [10**9]), "v5e:2x2")]
    """,
    "a_slice_is_counted_as_the_compiler_counts_it": """
    found = [compiler.devices(slices.slice_of(name)) for name in ("v3:8x8", "v5e:8x8", "v4:2x2x2")]
    """,
}


@pytest.fixture(scope="module")
def compiled(once):
    """Name of a test -> what its snippet found."""

    def make(folder):
        (folder / "found.json").write_text(json.dumps(run(PROGRAMS + ALL.format(snippets=repr(SNIPPETS)))))

    return json.loads((once("tpu-compiler", make) / "found.json").read_text())


ALL = """
    import textwrap

    results = {{}}
    for name, code in {snippets}.items():
        namespace = dict(globals())
        exec(textwrap.dedent(code), namespace)
        results[name] = namespace["found"]
    print(json.dumps(results))
"""


def test_memory_and_operations_of_a_product_are_those_counted_by_hand(compiled):
    found = compiled["memory_and_operations_of_a_product_are_those_counted_by_hand"]
    arguments, outputs, aliased, _, needed, operations, moved = found
    assert arguments == 4 * (256 * 512 + 512 * 1024)
    assert outputs == 4 * 256 * 1024
    assert aliased == 0
    assert needed >= arguments + outputs
    assert operations == pytest.approx(2 * 256 * 512 * 1024, rel=0.01)
    assert moved >= arguments + outputs


def test_a_variable_that_is_changed_keeps_its_place(compiled):
    found = compiled["a_variable_that_is_changed_keeps_its_place"]
    arguments, outputs, aliased, *_ = found
    assert arguments == 2 * 4 * 1024**2
    assert aliased == 4 * 1024**2  # the variable comes back in its own memory
    assert 0 < outputs - aliased < 4096  # the sum


def test_cores_that_sum_over_all_of_a_slice_are_compiled_together(compiled):
    found = compiled["cores_that_sum_over_all_of_a_slice_are_compiled_together"]
    assert found[0][0] == found[0][1] == 4 * 512 * 512
    assert found[1][0] == "RefusedError"  # a sum over eight cores is none of four


def test_an_identity_that_tensorflow_writes_in_its_own_words_is_understood():
    """The first obstacle met: a TPU compiler does not take mhlo.copy."""
    assert tpu_compiler._COPY.sub(tpu_compiler._RESHAPE, "%3 = mhlo.copy %2 : tensor<4x8xf32> loc(#loc)") == (
        "%3 = stablehlo.reshape %2 : (tensor<4x8xf32>) -> tensor<4x8xf32> loc(#loc)"
    )


def test_what_stays_on_the_chip_is_not_moved(compiled):
    """Of a chain that fits into a v5e's on-chip memory, only what comes in and goes out is; a v3 has none."""
    found = compiled["what_stays_on_the_chip_is_not_moved"]
    (arguments, outputs, *_, on_v5e), (*_, on_v3) = found
    assert on_v5e == pytest.approx(arguments + outputs, rel=0.05)
    assert on_v3 > 3 * (arguments + outputs)


def test_what_does_not_fit_is_told_from_what_is_refused(compiled):
    found = compiled["what_does_not_fit_is_told_from_what_is_refused"]
    assert found[0][0] == "TooLargeError"
    assert "memory" in found[0][1]
    assert "\n" not in found[0][1]
    assert found[1][0] == found[2][0] == pytest.approx(4e9, rel=1e-5)


def test_a_slice_is_counted_as_the_compiler_counts_it(compiled):
    counted = compiled["a_slice_is_counted_as_the_compiler_counts_it"]
    for topology, found in zip(("v3:8x8", "v5e:8x8", "v4:2x2x2"), counted, strict=True):
        one = slices.slice_of(topology)
        assert found == [one.cores, one.hosts]
