"""FAISS on GPUs: one or several, each with a share of the rows; never on the CPU without a line that says so.

FAISS itself is an argument here: `faiss_index` alone imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from retrieval_cl.core.errors import InputError

# Both k and nprobe; builds for CUDA before 9 stop at 1024, which they say themselves.
MOST_HITS = 2048
# Others would be copied to the CPU by FAISS, without a word.
_HELD = ("IndexFlat", "IndexFlatIP", "IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ")

Say = Callable[[str], None]


def count_gpus(faiss: Any, *, wanted: int | None, say: Say) -> int:
    """GPUs to use: all that FAISS sees where `wanted` is None, 0 where it sees none.

    Raises:
        InputError: more are wanted than FAISS sees.
    """
    seen = int(faiss.get_num_gpus())
    if wanted is not None and wanted > seen:
        raise InputError(
            f"{wanted} GPUs for FAISS, it sees {seen}: install retrieval-cl[gpu] in place of [cpu], "
            "or set index.gpus to what there is (0: the CPU)"
        )
    if wanted is None and not seen and "GPU" in faiss.get_compile_options():
        say("FAISS was built for GPUs and sees none: it computes on the CPU")
    return seen if wanted is None else wanted


def to_gpus(faiss: Any, index: Any, *, num_gpus: int, fp16: bool, say: Say) -> Any:
    """A copy of a filled index on so many GPUs; of several each holds a share of the rows.

    The copy is made at once: a flat index that grows on the GPU is allocated anew with every block.

    Args:
        faiss: the module.
        index: on the CPU.
        num_gpus: at least 1.
        fp16: keep Flat vectors and the tables of PQ in float16 (an IVF of float16 is 'IVF...,SQfp16').
        say: gets a line where the index stays on the CPU.

    Returns:
        The copy; `index` itself where FAISS cannot hold its kind on a GPU or has no room for it.
    """
    kind = type(_inner(faiss, index)).__name__
    if kind not in _HELD:
        say(f"FAISS holds no {kind} on a GPU: it stays on the CPU; valid: {', '.join(_HELD)}")
        return index
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = fp16
    options.shard = num_gpus > 1
    try:
        return faiss.index_cpu_to_all_gpus(index, co=options, ngpu=num_gpus)
    except RuntimeError as error:
        say(f"FAISS cannot copy the {kind} to {num_gpus} GPU(s), it stays on the CPU: {last_line(error)}")
        return index


@contextmanager
def lists_found_on(faiss: Any, index: Any, *, num_gpus: int, say: Say) -> Iterator[None]:
    """Inside, the list that a row belongs to is looked up on so many GPUs; codes are still made on the CPU.

    Where the index has no lists, their centres have a search of their own (a graph), or there are no GPUs,
    nothing changes.
    """
    ivf = faiss.try_extract_index_ivf(index) if num_gpus else None
    if ivf is None or type(faiss.downcast_index(ivf.quantizer)).__name__ not in _HELD:
        yield
        return
    centres, owned = faiss.downcast_index(ivf.quantizer), ivf.own_fields
    # Rows must meet the centres that a search will meet: not rounded.
    copy = to_gpus(faiss, centres, num_gpus=num_gpus, fp16=False, say=say)
    ivf.own_fields, ivf.quantizer = False, copy
    try:
        yield
    finally:
        ivf.quantizer, ivf.own_fields = centres, owned


def check_limits(k: int, nprobe: int | None) -> None:
    """Raises InputError where FAISS on a GPU cannot give so many hits or look into so many lists."""
    for name, value in (("k", k), ("nprobe", nprobe or 0)):
        if value > MOST_HITS:
            raise InputError(
                f"{name} is {value}: FAISS on a GPU takes at most {MOST_HITS}; ask for less, "
                "or search on the CPU (index.gpus 0) or exactly (index.factory null), which take any"
            )


def last_line(error: Exception) -> str:
    """The reason in an error of FAISS, without where it was raised."""
    return str(error).strip().splitlines()[-1].removeprefix("Error: ")


def _inner(faiss: Any, index: Any) -> Any:
    inner = faiss.downcast_index(index)
    return faiss.downcast_index(inner.index) if type(inner).__name__ == "IndexPreTransform" else inner
