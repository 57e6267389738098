"""The kernels of the loss are compiled without a GPU: what an interpreter runs may not compile."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

COMPILE = """
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from retrieval_cl.core.kernels import flash, flash_jit, sweep, sweep_jit

def built(kernel, types, constants, **options):
    place = {name: number for number, name in enumerate(kernel.arg_names)}
    constants = {(place[name],): value for name, value in constants.items()}
    rows = [name for name, kind in types.items() if kind[0] == "*" or name in ("stride_left", "stride_right")]
    aligned = {(place[name],): [["tt.divisibility", 16]] for name in rows}
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

def of_type(kind, *names):
    return dict.fromkeys(names, kind)

blocks = flash._blocks(flash.FASTEST_DIM, torch.bfloat16)
shape = {"WIDTH": flash.FASTEST_DIM, "DIM": flash.FASTEST_DIM, "ROWS": blocks.rows, "COLUMNS": blocks.columns}
shape |= {"PAIRS": flash.PAIRS_AT_ONCE, "PRECISION": "ieee", "UPCAST": False}
types = of_type("*bf16", "left", "right") | of_type("*i32", "bounds", "blocks", "stops", "places")
types |= of_type("*fp32", "left_bar", "right_bar") | of_type("i32", "num_rows", "num_columns", "num_blocks")
types |= of_type("i32", "stride_left", "stride_right", "blocks_per_split")
terms = of_type("*fp32", "left_logs", "left_slopes", "right_logs", "right_slopes", "out")
options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
swept = of_type("*fp32", "logits", "limits") | of_type("fp32", "exponent_a", "exponent_b")
swept |= of_type("i32", "num_rows", "num_columns", "stride")
sums = of_type("*fp32", "row_largest", "row_totals", "column_largest", "column_totals")
slopes = of_type("*fp32", "row_logs", "row_slopes", "column_logs", "column_slopes") | {"out": "*bf16"}
slopes |= of_type("i32", *(name for name in sweep_jit.write_slopes.arg_names if name.startswith("stride")))
whole = {"EXPONENTS": 2, "LIMITED": True, "BOTH": True}
for capability, instruction in ((80, "mma.sync"), (90, "wgmma")):
    out = of_type("*fp32", "out_largest", "out_totals")
    first = built(flash_jit.sum_rows, types | out, shape, **options)
    second = built(flash_jit.gradient_rows, types | terms, {**shape, "LEFT": True, "RIGHT": True}, **options)
    for kernel in (first, second):
        assert instruction in kernel.asm["ptx"] and kernel.metadata.shared < 163 * 1024
    size = {"ROWS": sweep.SUM_ROWS, "COLUMNS": sweep.SUM_COLUMNS}
    built(sweep_jit.sum_blocks, swept | sums, whole | size, num_warps=sweep.SUM_WARPS)
    size = {"ROWS": sweep.SLOPE_ROWS, "COLUMNS": sweep.SLOPE_COLUMNS}
    built(sweep_jit.write_slopes, swept | slopes, whole | size, num_warps=sweep.SLOPE_WARPS)
"""


@pytest.mark.slow
def test_kernels_of_the_loss_compile_for_an_a100_and_an_h100(tmp_path):
    # A process of its own, as here triton interprets.
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
