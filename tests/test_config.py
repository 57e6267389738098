"""The config of a run: what is read, what is put on top, and one line for each way to get it wrong."""

from pathlib import Path

import pytest
import yaml

from retrieval_cl.config import (
    ImageRunConfig,
    RunConfig,
    check_training,
    load_any_config,
    load_config,
    load_image_config,
    mines,
    refuse_overrides,
)
from retrieval_cl.core.errors import InputError
from retrieval_cl.reading import save_settings

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.fixture
def refused(tmp_path):
    """The one line with which a file and its overrides are refused; the file's folder cut off."""

    def load(text, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf8")
        with pytest.raises(InputError) as error:
            load_config(path, overrides)
        line = str(error.value)
        assert "\n" not in line
        return line.replace(f"{tmp_path}/", "")

    return load


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipe_loads_trains_and_begins_with_its_command(path):
    check_training(load_any_config(path))
    first = path.read_text(encoding="utf8").splitlines()[0]
    assert first.startswith(f"# retrieval-cl train configs/{path.name}")


def test_there_are_recipes():
    digits = {"simclr_digits", "moco_digits", "byol_digits"}
    assert digits | {"tldr_static", "tldr_minilm"} <= {path.stem for path in CONFIGS}


def test_overrides_come_on_top_of_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("training: {lr: 0.5, rounds: 2}\nname: first\n")
    config = load_config(path, ["training.lr=1e-3", "encoder.dim=64", "name=second"])
    assert (config.training.lr, config.training.rounds) == (0.001, 2)
    assert (config.encoder.dim, config.name) == (64, "second")


def test_empty_file_and_empty_section_mean_the_defaults(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text in ("", "# nothing\n", "training:\nmining:\n"):
        path.write_text(text)
        assert load_config(path) == RunConfig()


def test_saved_config_loads_as_the_same(tmp_path):
    config = load_config(None, ["training.steps=30", "method.in_batch=false", "training.first_mined_round=0"])
    save_settings(config, tmp_path / "out.yaml", comment="retrieval-cl train out.yaml")
    assert load_config(tmp_path / "out.yaml") == config
    assert (tmp_path / "out.yaml").read_text().startswith("# retrieval-cl train out.yaml\n")


def test_every_key_is_described():
    def undescribed(model, place):
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{place}{name}"
            if hasattr(field.annotation, "model_fields"):
                yield from undescribed(field.annotation, f"{place}{name}.")

    assert list(undescribed(RunConfig, "")) == []
    assert list(undescribed(ImageRunConfig, "")) == []


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        (
            "training:\n  batchsize: 3\n",
            (),
            "recipe.yaml, line 2: unknown key 'training.batchsize'; did you mean",
        ),
        ("name: a\nlr: 3\n", (), "recipe.yaml, line 2: unknown key 'lr'; did you mean 'training.lr'?"),
        ("training: {epochs_per_rond: 2}\n", (), "did you mean 'training.epochs_per_round'?"),
        ("qqq: 1\n", (), "unknown key 'qqq'; valid: name, output, source"),
        ("", ("trainig.lr=1",), "--set trainig.lr=1: unknown key 'trainig'; did you mean 'training'?"),
        ("", ("training.lr.x=3",), "--set training.lr.x=3"),
        (
            "training:\n  batch_size: many\n",
            (),
            "line 2: training.batch_size is 'many'; expected a valid integer",
        ),
        ("training:\n  lr: -1\n", (), "line 2: training.lr is -1; expected greater than 0"),
        ("training: 3\n", (), "line 1: 'training' is 3; it holds keys of its own: seed, "),
        (
            "source: {kind: beer}\n",
            (),
            "source.kind is 'beer'; expected 'pydoc', 'beir', 'pairs' or 'huggingface'",
        ),
        ("method: {name: simclrr}\n", (), "method.name 'simclrr': no such method"),
        ("encoder: {kind: transformer}\n", (), "encoder: kind 'transformer' needs path"),
        ("encoder: {kind: static, path: x}\n", (), "encoder: path = 'x' has no effect with kind 'static'"),
        ("training: {steps: 9, epochs_per_round: 2}\n", (), "epochs_per_round has no effect beside steps"),
        ("training: {lr: .nan}\n", (), "training.lr is nan"),
        ("training:\n  batch_size: 8\n  graph_tokens: 9\n", (), "line 3: training: graph_tokens has no"),
        ("method: {in_batch: false, positives: sum}\n", (), "positives: sum has no effect with in_batch"),
        ("name: a/b\n", (), "name is 'a/b'"),
        ("a: [1\nb: 2\n", (), "recipe.yaml, line 2: broken YAML: "),
        ("\tname: x\n", (), "recipe.yaml, line 1: broken YAML: "),
        ("name: !!python/object:os.system x\n", (), "recipe.yaml, line 1: broken YAML: "),
        ("name: a\nname: b\n", (), "recipe.yaml, line 2: key 'name' stands twice"),
        ("training:\n  lr: 1\n  lr: 2\n", (), "recipe.yaml, line 3: key 'training.lr' stands twice"),
        ("- a\n", (), "recipe.yaml: expected settings as `key: value`, got list"),
        ("", ("training",), "--set training: expected key=value"),
        ("", ("=3",), "--set =3: expected key=value"),
        ("", ("training.lr=[1",), "--set training.lr=[1: the value is broken YAML"),
        (
            "mining:\n  depth: 50\n",
            ("mining.rank_max=80",),
            "--set mining.rank_max=80: mining: rank_max 80 lies beyond depth 50",
        ),
        (
            "mining:\n  num_negatives: 2\n",
            ("mining.quotas.lexical=3",),
            "--set mining.quotas.lexical=3: mining",
        ),
        ("mining:\n  rank_max: 80\n  depth: 50\n", ("mining.near_text=0.5",), "line 2: mining: rank_max 80"),
        ("name: x\n", ("name.y=1",), "--set name.y=1: 'name' holds no keys of its own"),
    ],
)
def test_wrong_setting_is_one_line_with_its_place(refused, text, overrides, said):
    assert said in refused(text, *overrides)


def test_several_wrong_settings_are_counted(refused):
    assert refused("training: {lr: -1, rounds: 0, batch_size: x}\n").endswith("(and 2 more)")


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8 at byte 9"):
        load_config(tmp_path / "latin.yaml")


def test_data_option_knows_the_kind_by_what_stands_there(tmp_path):
    beir, pairs, saved = tmp_path / "beir", tmp_path / "pairs", tmp_path / "saved"
    for folder, name in ((beir, "corpus.jsonl.gz"), (pairs, "train.csv"), (saved, "dataset_info.json")):
        folder.mkdir()
        (folder / name).touch()
    kinds = {str(beir): "beir", str(pairs): "pairs", str(pairs / "train.csv"): "pairs"}
    for data, kind in {**kinds, str(saved): "huggingface", "org/name": "huggingface"}.items():
        source = load_config(None, data=data).source
        assert (source.kind, source.path) == (kind, data)
    assert load_config(None, data="pydoc").source.kind == "pydoc"
    with pytest.raises(InputError, match=r"--data \./none: no such file or folder"):
        load_config(None, data="./none")


def test_data_option_takes_the_place_of_the_section_and_set_comes_after(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("source: {kind: pydoc, max_pairs: 10}\n")
    source = load_config(path, ["source.dev_share=0.2"], data=str(tmp_path)).source
    assert (source.kind, source.dev_share, source.max_pairs) == ("pairs", 0.2, 60_000)


def test_mining_settings_without_a_mined_round_are_refused():
    for way in ("training.rounds=1", "training.num_negatives=0", "training.first_mined_round=3"):
        config = load_config(None, [way, "mining.depth=50"])
        assert not mines(config.training)
        with pytest.raises(InputError, match=r"mining\.depth has no effect: no round is mined for"):
            check_training(config)
        check_training(load_config(None, [way]))


@pytest.mark.parametrize("setting", ["method.negatives=private", "method.in_batch=false"])
def test_own_negatives_without_any_are_refused(setting):
    with pytest.raises(InputError, match=r"method\.(negatives|in_batch).*training\.num_negatives"):
        check_training(load_config(None, [setting, "training.num_negatives=0"]))
    check_training(load_config(None, [setting]))


def test_more_negatives_a_step_than_mined_are_refused():
    with pytest.raises(InputError, match=r"training\.num_negatives 6 is more than mining\.num_negatives 4"):
        check_training(load_config(None, ["training.num_negatives=6"]))


def test_set_of_a_section_the_command_does_not_read_is_refused():
    refuse_overrides(
        ["source.kind=pydoc", "evaluation.split=dev"], used=("source", "evaluation"), command="eval"
    )
    with pytest.raises(InputError, match="'augmentation' has no effect in `index`"):
        refuse_overrides(["augmentation.flip=0"], used=("source", "index"), command="index")
    with pytest.raises(InputError, match=r"--set training\.lr=1: 'training' has no effect in `eval`"):
        refuse_overrides(["training.lr=1"], used=("source", "evaluation"), command="eval")


def test_kind_of_the_source_else_the_method_tells_which_config_it_is(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text, kind in (
        ("source: {kind: digits}\n", ImageRunConfig),
        ("method: {name: moco}\n", ImageRunConfig),
        ("source: {kind: image_folder, path: x}\nmethod: {name: byol}\n", ImageRunConfig),
        ("source: {kind: pydoc}\n", RunConfig),
        ("method: {name: dual_encoder}\n", RunConfig),
        ("", RunConfig),
    ):
        path.write_text(text)
        assert type(load_any_config(path)) is kind, text
    path.write_text("method: {name: simclr}\n")
    assert load_any_config(path, ["source.kind=image_npz", "source.path=a.npz"]).source.kind == "image_npz"


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        (
            "source:\n  kind: digits\nmethod:\n  name: dual_encoder\n",
            (),
            "recipe.yaml, line 4: method 'dual_encoder' takes texts, source.kind 'digits' gives images; "
            "set source.kind to pydoc, beir, pairs, huggingface, or another method.name",
        ),
        (
            "source: {kind: pydoc}\n",
            ("method.name=simclr",),
            "--set method.name=simclr: method 'simclr' takes images, source.kind 'pydoc' gives texts; "
            "set source.kind to digits, image_folder",
        ),
        (
            "method: {name: simclr}\n",
            ("source.kind=digit",),
            "--set source.kind=digit: source.kind is 'digit'; expected",
        ),
        (
            "source: {kind: digits}\nencoder: {dim: 3}\n",
            (),
            "recipe.yaml, line 2: unknown key 'encoder.dim'; did you mean 'method.projector.dim'",
        ),
    ],
)
def test_mismatch_of_source_and_method_is_one_line_with_its_place(tmp_path, text, overrides, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf8")
    with pytest.raises(InputError) as error:
        load_any_config(path, overrides)
    line = str(error.value).replace(f"{tmp_path}/", "")
    assert line.startswith(said) and "\n" not in line


def test_images_are_trained_by_simclr_where_no_method_is_named():
    config = load_any_config(None, ["method.temperature=0.3"], data="digits")
    assert (config.method.name, config.method.temperature) == ("simclr", 0.3)
    with pytest.raises(InputError, match="name 'dual_encoder' takes texts; of images: simclr, moco, byol"):
        load_image_config(None, ["method.name=dual_encoder"])


def test_data_option_knows_the_kind_of_images(tmp_path):
    folder, archives, tables, saved = (tmp_path / name for name in ("photos", "npz", "parquet", "saved"))
    for place, name in ((archives, "train.npz"), (tables, "a.parquet"), (saved, "dataset_dict.json")):
        place.mkdir()
        (place / name).touch()
    folder.mkdir()
    kinds = {folder: "image_folder", archives: "image_npz", archives / "train.npz": "image_npz"}
    kinds |= {tables: "image_parquet", saved: "image_dataset"}
    for data, kind in kinds.items():
        source = load_image_config(None, data=str(data)).source
        assert (source.kind, source.path) == (kind, str(data))
    assert load_image_config(None, data="org/name").source.kind == "image_dataset"
    # A method on the command line says what the folder holds.
    source = load_any_config(None, ["method.name=byol"], data=str(folder)).source
    assert source.kind == "image_folder"


@pytest.mark.parametrize("place", ["a.JPG", "cats/a.png", "train/cats/a.webp"])
def test_folder_of_images_is_known_where_nothing_says_what_it_is(tmp_path, place):
    photo = tmp_path / "photos" / place
    photo.parent.mkdir(parents=True)
    photo.touch()
    data = str(tmp_path / "photos")
    config = load_any_config(None, ["training.batch_size=8"], data=data)
    assert (config.source.kind, config.source.path, config.method.name) == ("image_folder", data, "simclr")
    # A run that is said to be on texts stays one.
    assert load_any_config(None, ["method.name=dual_encoder"], data=data).source.kind == "pairs"
    assert load_any_config(None, data=str(tmp_path / "x.npz")).source.kind == "image_npz"
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").touch()
    assert load_any_config(None, data=str(tmp_path / "texts")).source.kind == "pairs"


def test_output_defaults_to_the_name_below_runs(tmp_path):
    assert load_config(None, ["name=a"]).folder == Path("runs/a")
    assert load_config(None, [f"output={tmp_path}"]).folder == tmp_path


def test_defaults_are_written_as_nothing(tmp_path):
    save_settings(RunConfig(), tmp_path / "out.yaml")
    assert yaml.safe_load((tmp_path / "out.yaml").read_text()) == {}
