"""GPU section of CLIP: images a second, memory and the largest batch, beside full logits in one piece.

A CLIP model of transformers of a ViT-B/16's size with random weights, bf16; captions have up to 32 tokens.
The peer is what open_clip does on one GPU: both towers with all their graphs, the logits of all pairs, both
cross-entropies.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from gpu_steps import EXACT, memory_of
from gpu_tools import extra_mib, first_that_fits
from side_by_side import Goal, Row, Step, compare_amounts, time_in_turn
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from towers import difference, gradients, taken

from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.encoders.image_text_transform import Transform
from retrieval_cl.encoders.image_text_whole import WholeClip
from retrieval_cl.methods.clip import Clip
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.training.chunks import embed_views
from retrieval_cl.training.steps import TakeStep, cached_step

MIDDLE = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Shape:
    """Of a CLIP model: sizes of its towers; pairs to try at most; images a chunk."""

    image: int = 224
    patch: int = 16
    width: int = 768
    text_width: int = 512
    layers: int = 12
    head: int = 64
    dim: int = 512
    words: int = 49_408
    longest: int = 32
    most_pairs: int = 4096
    chunk: int = 256
    loss_pairs: int = 32_768

    @property
    def cost(self) -> int:
        """Tokens of an image."""
        return (self.image // self.patch) ** 2 + 1


BASE = Shape()
TINY = Shape(
    image=16,
    patch=8,
    width=16,
    text_width=16,
    layers=1,
    head=8,
    dim=8,
    words=50,
    longest=6,
    most_pairs=8,
    chunk=4,
    loss_pairs=16,
)


def clip(device: torch.device, *, quick: bool) -> list[Row]:
    """At half the plain step's largest batch, then at batches that it cannot take, then the loss alone."""
    shape = TINY if quick else BASE
    method = build_method(shape).to(device)
    rows = [same_gradients(device)]
    most = largest_batch(method, shape, device)
    pairs = max(2, most // 2)
    budget = shape.chunk * shape.cost
    cached: TakeStep = partial(cached_step, chunk_tokens=budget, graph_tokens=0)
    takes = {
        "full logits": step_of(full_logits_step, method, shape, device, pairs=pairs),
        "cached": step_of(cached, method, shape, device, pairs=pairs),
        "ours, whole": step_of(partial(cached_step, chunk_tokens=2**62), method, shape, device, pairs=pairs),
    }
    timings = time_in_turn(takes, repeats=3, wait=torch.cuda.synchronize)
    memory = {name: memory_of(take, method) for name, take in takes.items()}
    for name in ("cached", "ours, whole"):
        rows += [
            timings.compare_rates(
                f"rate at {pairs} pairs, {name}", name, "full logits", amount=pairs, unit="images/s"
            ),
            compare_amounts(
                f"memory at {pairs} pairs, {name}", memory[name], memory["full logits"], unit="MiB"
            ),
        ]
    del takes
    many = 16 * most
    take = step_of(cached, method, shape, device, pairs=many)
    mib = memory_of(take, method)
    once = time_in_turn({"cached": take}, repeats=1, wait=torch.cuda.synchronize).seconds["cached"][0]
    del take
    return [
        *rows,
        compare_amounts("largest batch by doubling; ours: still runs", many, most, unit="pairs"),
        compare_amounts(f"memory at {many} pairs; peer at {pairs}", mib, memory["full logits"], unit="MiB"),
        Row(f"rate at {many} pairs, cached", many / once, None, "images/s", None),
        *loss_alone(method, shape, device),
    ]


def same_gradients(device: torch.device) -> Row:
    """Our cached step beside full logits in float64, scale included; `peer` is what is allowed."""
    method, found = build_method(TINY).to(device).double(), []
    batch, cast = (
        draw_batch(TINY, 16, device, dtype=torch.float64),
        torch.autocast(device.type, enabled=False),
    )
    for step in (full_logits_step, partial(cached_step, chunk_tokens=4 * TINY.cost, graph_tokens=0)):
        taken(step, method, batch, cast)()
        found.append(gradients(method))
    off = difference(found[1], found[0])
    return compare_amounts("CLIP, cached gradients off, float64", off, 1e-12, unit="share", goal=EXACT)


def loss_alone(method: Clip, shape: Shape, device: torch.device) -> list[Row]:
    """The loss of given vectors and its way back: time and memory beside full logits in float32."""
    random, pairs = torch.Generator(device).manual_seed(0), shape.loss_pairs
    leaves = {
        kind: normalize(
            torch.randn(pairs, shape.dim, generator=random, device=device), dim=1
        ).requires_grad_()
        for kind in ("image", "text")
    }
    ids, nothing = torch.arange(pairs), Ragged.from_lists([])
    batch = Batch({kind: View(nothing, ids) for kind in leaves}, ids[:, None])

    def run(loss: Any) -> Step:
        def step() -> Tensor:
            for leaf in leaves.values():
                leaf.grad = None
            method.zero_grad()
            value: Tensor = loss()
            value.backward()
            return value.detach()

        return step

    contestants = {
        "ours": run(lambda: method.loss(leaves, batch).mean()),
        "full logits": run(lambda: full_logits_loss(method, leaves)),
    }
    timings = time_in_turn(contestants, repeats=3, wait=torch.cuda.synchronize)
    ours, plain = (float(timings.values[name]) for name in contestants)
    held = sum(leaf.nbytes for leaf in leaves.values())
    mib = {name: extra_mib(step, gradient_bytes=held) for name, step in contestants.items()}
    what = f"of {pairs} x {pairs} x {shape.dim} both ways"
    off = abs(ours - plain) / abs(plain)
    return [
        compare_amounts(f"loss {what}, off", off, 1e-4, unit="share", goal=Goal(1.0, required=True)),
        timings.compare(f"time of the loss {what}", "ours", "full logits"),
        compare_amounts(f"memory of the loss {what}", mib["ours"], mib["full logits"], unit="MiB"),
    ]


def full_logits_step(
    method: Method, batch: Batch, cast: AbstractContextManager[object]
) -> tuple[Tensor, Embeddings]:
    """As open_clip's ClipLoss: logits = scale * images @ texts.T, the mean of both cross-entropies."""
    found = embed_views(method, batch, cast)
    loss = full_logits_loss(method, found)
    loss.backward()
    return mean_over_ranks(loss.detach()), {kind: vectors.detach() for kind, vectors in found.items()}


def full_logits_loss(method: Method, found: Embeddings) -> Tensor:
    """Of all pairs, each pair's own being right."""
    assert isinstance(method, Clip), "of images and texts"
    logits = method.temperature.scale() * found["image"] @ found["text"].T
    labels = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def largest_batch(method: Clip, shape: Shape, device: torch.device) -> int:
    """The largest power of two pairs, up to the shape's most, whose step with full logits fits."""
    counts = takewhile(lambda pairs: pairs >= 2, (shape.most_pairs >> halvings for halvings in range(32)))

    def run(pairs: int) -> None:
        try:
            step_of(full_logits_step, method, shape, device, pairs=pairs)()
        finally:
            method.zero_grad()

    return first_that_fits(counts, run)


def step_of(step: TakeStep, method: Clip, shape: Shape, device: torch.device, *, pairs: int) -> Step:
    """A step of a batch of so many pairs, in bf16."""
    cast = torch.autocast(device.type, dtype=torch.bfloat16)
    return taken(step, method, draw_batch(shape, pairs, device, dtype=torch.bfloat16), cast)


def draw_batch(shape: Shape, pairs: int, device: torch.device, *, dtype: torch.dtype) -> Batch:
    """Noise on the device, and random words; no two pairs match."""
    random, ids = np.random.default_rng(0), torch.arange(pairs)
    end = shape.words - 1
    lengths = random.integers(shape.longest // 2, shape.longest, pairs)
    texts = [[*random.integers(0, end, length).tolist(), end] for length in lengths]
    generator = torch.Generator(device).manual_seed(0)
    size = (pairs, 3, shape.image, shape.image)
    pixels = torch.randn(size, generator=generator, device=device, dtype=dtype)
    views = {
        "image": View(Pixels(pixels, cost=shape.cost), ids),
        "text": View(Ragged.from_lists(texts, dtype=np.int32), ids),
    }
    return Batch(views, ids[:, None])


def build_method(shape: Shape) -> Clip:
    """The same weights every time, a learned scale."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    common = {"num_hidden_layers": shape.layers, "projection_dim": shape.dim}
    vision = common | {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_attention_heads": shape.width // shape.head,
        "image_size": shape.image,
        "patch_size": shape.patch,
    }
    text = common | {
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_attention_heads": shape.text_width // shape.head,
        "vocab_size": shape.words,
        "bos_token_id": shape.words - 2,
        "eos_token_id": shape.words - 1,
    }
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=shape.dim)
    transform = Transform(size=shape.image, edge=None, filter="bilinear", mean=MIDDLE, std=MIDDLE)
    encoder = WholeClip(CLIPModel(config), tokenizer=_tokenizer(shape.words), transform=transform)
    return Clip.build(MethodConfig(name="clip"), encoder).train()


def _tokenizer(words: int) -> Any:
    """Knows one word and the end of a text, which has the last id."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    end = words - 1
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<end>": end}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", end)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
