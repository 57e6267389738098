"""The command `copies`, and what `search` prints where it can be asked by images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_cl.config import load_image_config, refuse_overrides
from retrieval_cl.console import say, tell, typed_command
from retrieval_cl.core.errors import InputError
from retrieval_cl.options import Output, Set

if TYPE_CHECKING:
    from retrieval_cl.indexing.index import Index
    from retrieval_cl.runs.search_image_text import ImageTextAnswer
    from retrieval_cl.runs.search_images import ImageAnswer


def copies(
    source: Annotated[str, typer.Argument(help="Folder or file of images, Hugging Face id, or 'digits'.")],
    output: Output = None,
    distance: Annotated[int, typer.Option(min=0, max=31, help="Bits of 64 a near copy may differ in.")] = 8,
    correlation: Annotated[float, typer.Option(min=-1, max=1, help="Least, of their thumbnails.")] = 0.95,
    set_: Set = None,
) -> None:
    """Look for copies among images: the same pixels or nearly, in a split or in two of them.

    Leaves copies.json with all pairs, and copies.html with the first ones side by side.

    Examples:
    * `retrieval-cl copies photos/`
    * `retrieval-cl copies data/cifar10 --output runs/cifar10_copies`
    * `retrieval-cl copies photos/ --distance 4 --correlation 0.98 --set source.size=64`
    """
    refuse_overrides(set_ or (), used=("source",), command="copies")
    settings = load_image_config(None, set_ or (), data=source).source
    from retrieval_cl.runs.report_copies import PAGE, report_copies

    name = Path(source).expanduser().resolve().name.split(".")[0]
    done = report_copies(
        settings,
        output=output or Path("runs") / f"{name}-copies",
        max_distance=distance,
        min_correlation=correlation,
        command=typed_command(sys.argv[1:]),
        say=say,
    )
    tell(done.text())
    tell(f"\npairs side by side: {done.folder / PAGE}")


def search_images(
    index: Index,
    queries: Sequence[str],
    *,
    k: int,
    mode: str,
    as_json: bool,
    model: str | None,
    sheet: Path | None,
) -> None:
    """Searches by each image, or text where the model embeds both, and prints its hits.

    `sheet` also gets them as pictures.

    Raises:
        InputError: a mode that needs words among images, or as `ImageSearcher` and `ImageTextSearcher` do.
    """
    if index.embeds == "image_text":
        _search_image_text(index, queries, k=k, mode=mode, as_json=as_json, model=model, sheet=sheet)
        return
    if mode != "dense":
        raise InputError(f"--mode {mode}: {index.folder} holds images, which have no words; use dense")
    from retrieval_cl.runs.search_images import ImageSearcher, check_sheet, write_sheet

    if sheet is not None:
        check_sheet(sheet)
    searcher = ImageSearcher(index, model=model)
    answers = [searcher.search(query, k=k) for query in queries]
    _print_answers(answers, as_json=as_json)
    if sheet is not None:
        write_sheet(sheet, answers, index=index)
        say(f"contact sheet: {sheet}")


def _search_image_text(
    index: Index,
    queries: Sequence[str],
    *,
    k: int,
    mode: str,
    as_json: bool,
    model: str | None,
    sheet: Path | None,
) -> None:
    from retrieval_cl.runs.search_image_text import ImageTextSearcher, write_sheet
    from retrieval_cl.runs.search_images import check_sheet

    if sheet is not None:
        check_sheet(sheet)
    searcher = ImageTextSearcher(index, model=model)
    answers = [searcher.search(query, k=k, mode=mode) for query in queries]
    _print_answers(answers, as_json=as_json)
    if sheet is not None:
        write_sheet(sheet, answers, index=index)
        say(f"contact sheet: {sheet}")


def _print_answers(answers: Sequence[ImageAnswer | ImageTextAnswer], *, as_json: bool) -> None:
    if as_json:
        tell(json.dumps([answer.to_json() for answer in answers], ensure_ascii=False, indent=2))
    else:
        tell("\n\n".join(f"> {answer.query}\n{answer.text()}" for answer in answers))
