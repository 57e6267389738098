"""The command line: parse, load the config, call one function of `runs`, print. Heavy imports are inside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from retrieval_cl.config import refuse_overrides, set_output
from retrieval_cl.console import TRACEBACK, bar, run_app, say, tell, training_stops, typed_command
from retrieval_cl.core.errors import InputError
from retrieval_cl.demo_command import demo
from retrieval_cl.image_commands import copies, search_images
from retrieval_cl.mine_command import mine
from retrieval_cl.options import Config, Data, Mode, ModelName, Output, Set, Store
from retrieval_cl.runs.models import config_to_train, find_model

VECTORS = Path("vectors.npy")
# typer has carried click under several names: its error for a wrong command line, wherever that lies.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="retrieval-cl",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    show_traceback: Annotated[bool, typer.Option(TRACEBACK, help="Show where an error came from.")] = False,
) -> None:
    """Train contrastive retrievers and use them: mine, train, evaluate, index, search.

    Start with `retrieval-cl quickstart`. Any model it leaves can be searched, evaluated and trained on.
    """
    del show_traceback  # `main` reads it wherever it stands


@app.command()
def quickstart(
    output: Output = None,
    packages: Annotated[str | None, typer.Option(help="Read these, not our dependencies: numpy,rich")] = None,
    all_packages: Annotated[bool, typer.Option("--all-packages", help="Read all installed.")] = False,
    control: Annotated[bool, typer.Option(help="Also train with in-batch negatives alone.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first weights, batches and mining.")] = 0,
    set_: Set = None,
) -> None:
    """From the docs on this disk to a retriever: data, training, mining, evaluation, index, report.

    Needs no download. Leaves runs/quickstart/ with model/, index/, report.html and results.json.

    Examples:
    * `retrieval-cl quickstart`
    * `retrieval-cl quickstart --packages numpy,scipy --no-control --output runs/numpy`
    * `retrieval-cl quickstart --set training.rounds=4 --seed 1`
    """
    from retrieval_cl.runs.recipes import quickstart_config

    if packages is not None and all_packages:
        raise InputError("--packages and --all-packages: give one of them")
    named = [f"source.packages={json.dumps(packages.split(','))}"] if packages is not None else []
    every = ["source.all_packages=true"] if all_packages else []
    overrides = [f"training.seed={seed}", *named, *every, *(set_ or ()), *set_output(output)]
    settings = quickstart_config(overrides)
    from retrieval_cl.runs import quickstart as story
    from retrieval_cl.training.progress import make_display

    with training_stops():
        done = story.quickstart(
            settings,
            with_control=control,
            command=typed_command(sys.argv[1:]),
            display=make_display(sys.stderr),
            say=say,
        )
    tell(done.scoreboard.text())
    for answer in done.answers:
        tell(f"\n> {answer.query}\n{answer.text(snippets=False)}")
    tell(
        f"\n{done.seconds:.0f} s, {done.peak_rss_gib:.1f} GiB at most; report: {done.folder / 'report.html'}"
    )
    tell(f'next: retrieval-cl search {done.folder / "index"} "how do I ..."')


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="YAML file, or the folder of a run.")] = None,
    data: Data = None,
    output: Output = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that stands there.")] = False,
    set_: Set = None,
) -> None:
    """Train a retriever on texts, or an encoder of images without labels; then measure it.

    On texts: rounds of mining and training, then an evaluation beside BM25. On images (SimCLR, MoCo, BYOL):
    nearest neighbours and a linear classifier, beside raw pixels and the untrained encoder.

    Examples:
    * `retrieval-cl train configs/tldr_static.yaml --set source.path=data/tldr`
    * `retrieval-cl train --data data/my_set --output runs/mine`
    * `retrieval-cl train configs/simclr_digits.yaml`
    * `retrieval-cl train runs/mine --resume`
    """
    settings = config_to_train(config, output=output, overrides=set_ or (), data=data)
    from retrieval_cl.runs.stories import train_story
    from retrieval_cl.training.progress import make_display

    story = train_story(settings)
    with training_stops():
        done = story(
            resume=resume,
            overwrite=overwrite,
            command=typed_command(sys.argv[1:]),
            display=make_display(sys.stderr),
            say=say,
        )
    tell(done.text())
    tell(f"\nmodel and report in {done.folder} (report.html); next: retrieval-cl index {done.folder}")


app.command()(mine)
app.command()(copies)
app.add_typer(demo, name="demo")


@app.command("eval")
def evaluate(
    model: ModelName,
    data: Data = None,
    config: Config = None,
    against: Annotated[str | None, typer.Option(help="A second model to test the first against.")] = None,
    output: Output = None,
    trec: Annotated[bool, typer.Option("--trec", help="Also write TREC run files.")] = False,
    set_: Set = None,
) -> None:
    """Measure a model on a split: of texts beside tuned BM25 and the hybrid, of images beside raw pixels.

    Examples:
    * `retrieval-cl eval runs/tldr`
    * `retrieval-cl eval runs/tldr --data data/cacm --set evaluation.split=test`
    * `retrieval-cl eval runs/mined --against runs/control`
    * `retrieval-cl eval runs/simclr_digits --against runs/byol_digits`
    """
    refuse_overrides(set_ or (), used=("source", "evaluation", "index"), command="eval")
    found = find_model(model)
    second = None if against is None else find_model(against)
    from retrieval_cl.runs.stories import eval_story

    story = eval_story(found, config=config, overrides=set_ or (), data=data, output=output)
    done = story(against=second, write_trec=trec, say=say)
    tell(done.text())
    tell(f"\nwritten to {done.folder}")


@app.command()
def index(
    model: ModelName,
    data: Data = None,
    corpus: Annotated[Path | None, typer.Option(help="Texts: .jsonl, .csv, .tsv, .parquet, .txt.")] = None,
    config: Config = None,
    output: Output = None,
    copy_model: Annotated[bool, typer.Option("--copy-model", help="Keep a copy of it inside.")] = False,
    factory: Annotated[str | None, typer.Option(help="FAISS: 'auto', 'HNSW32' ...; default: exact.")] = None,
    target_recall: Annotated[float | None, typer.Option(help="Of FAISS, reached or refused.")] = None,
    memory: Annotated[str | None, typer.Option(help="For building FAISS: 2GiB.")] = None,
    what: Annotated[
        Literal["images", "captions"] | None, typer.Option(help="Of a model of both; default: images.")
    ] = None,
    store: Store = None,
    set_: Set = None,
) -> None:
    """Index a corpus for search: vectors, words, texts, and the model they belong to; or images.

    Examples:
    * `retrieval-cl index runs/tldr`
    * `retrieval-cl index runs/simclr_digits --data photos/ --output photos.index`
    * `retrieval-cl index runs/clip --what captions --output captions.index`
    * `retrieval-cl index runs/tldr --corpus notes.jsonl --output notes.index --copy-model`
    * `retrieval-cl index runs/tldr --factory auto --target-recall 0.98 --memory 2GiB`
    """
    refuse_overrides(set_ or (), used=("source", "index"), command="index")
    if corpus is not None and data is not None:
        raise InputError("--corpus and --data: give one of them")
    found = find_model(model)
    named = {"factory": factory, "target_recall": target_recall, "memory": memory, "what": what}
    given = [f"index.{key}={value}" for key, value in named.items() if value is not None] + (set_ or [])
    from retrieval_cl.runs.stories import index_story

    story = index_story(found, config=config, overrides=given, data=data, corpus=corpus, store=store)
    with bar("encoding") as progress:
        done = story(
            output=output or found.folder / "index", copy_model=copy_model, say=say, progress=progress
        )
    words = "" if done.words is None else f", BM25 with {done.words}"
    tell(f"{done.num_passages:,} {done.what} in {done.folder}{words} ({done.seconds:.1f} s)")
    if done.faiss is not None:
        tell(done.faiss)
    tell(f"next: retrieval-cl search {done.folder} {done.asked}")


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="The index, or a run that holds one.")],
    query: Annotated[list[str], typer.Argument(help="What you look for.")],
    k: Annotated[int, typer.Option("-k", help="Hits.")] = 10,
    mode: Annotated[Mode, typer.Option(help="By meaning, by words, or both.")] = "dense",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: Annotated[str | None, typer.Option(help="Default: the model that the index names.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare files with their hashes.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Images: also write hits.html or .png.")] = None,
) -> None:
    """Search an index: of texts by a question, of images by image files or by ids of its images.

    An index of a model of images with texts takes both: each QUERY that names no image is a text.

    Examples:
    * `retrieval-cl search runs/quickstart/index "how do I read a file line by line"`
    * `retrieval-cl search runs/tldr "list open ports" -k 5 --mode hybrid`
    * `retrieval-cl search runs/tldr "list open ports" --json`
    * `retrieval-cl search photos.index "a dog on a beach" boat.jpg --sheet hits.html`
    """
    from retrieval_cl.runs.search import Searcher, find_index

    opened = find_index(index, check_hashes=verify)
    if opened.takes_images:
        search_images(opened, query, k=k, mode=mode, as_json=as_json, model=model, sheet=sheet)
        return
    if sheet is not None:
        raise InputError(f"--sheet {sheet} has no effect: {opened.folder} holds texts")
    answer = Searcher(opened, model=model).search(" ".join(query), k=k, mode=mode)
    if as_json:
        tell(json.dumps(answer.to_json(), ensure_ascii=False, indent=2))
        return
    tell(answer.text())
    if answer.note:
        say(answer.note)


@app.command()
def embed(
    model: ModelName,
    text: Annotated[list[str] | None, typer.Argument(help="Texts; or give --file.")] = None,
    file: Annotated[Path | None, typer.Option(help=".txt (a text a line), .jsonl, .csv ...")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Or .safetensors, .parquet; a folder: a store.")
    ] = VECTORS,
    kind: Annotated[Literal["query", "passage"], typer.Option(help="Which prompt and tower.")] = "passage",
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None, typer.Option(help="Of a store.")
    ] = None,
) -> None:
    """Embed texts; write the vectors with their ids.

    A folder (a name without an ending) becomes a store of shards: it may be killed and goes on, and called
    again it embeds only texts that are new or changed, or all of them for another model.

    Examples:
    * `retrieval-cl embed runs/tldr "list open ports" --kind query -o query.npy`
    * `retrieval-cl embed runs/tldr --file corpus.jsonl -o corpus.parquet`
    * `retrieval-cl embed runs/tldr --file corpus.jsonl -o corpus.store --dtype float16`
    """
    if bool(text) == (file is not None):
        raise InputError("give texts or --file, one of them")
    from retrieval_cl.runs import embed as story
    from retrieval_cl.runs.corpus import given_texts, read_texts

    is_store = output.suffix in ("", ".store")
    if not is_store:
        story.check_suffix(output)
        if dtype is not None:
            raise InputError(f"--dtype {dtype} has no effect on {output}: files hold float32; name a folder")
    texts = given_texts(text or ()) if file is None else read_texts(file)
    with bar("encoding") as progress:
        if is_store:
            done = story.embed_into_store(
                output, find_model(model), texts, kind=kind, dtype=dtype or "float16", progress=progress
            )[1]
            kept = done.copied + done.kept
            tell(f"{len(texts.ids):,} vectors in {output}: {done.encoded:,} embedded, {kept:,} kept")
            return
        vectors = story.embed_texts(find_model(model), texts, kind=kind, progress=progress)
    story.write_vectors(output, vectors, ids=texts.ids)
    tell(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {output}")


def main() -> None:
    """Runs the command line and exits with its code."""
    run_app(app, usage_error=_UsageError)
