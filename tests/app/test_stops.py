"""Training that is stopped, resumed or fails, and disks that fill up: one line, and nothing half done."""

import errno
import re
import signal

import pytest
from safetensors.numpy import load_file

from retrieval_cl.core import files
from retrieval_cl.training import diagnosis, monitor


@pytest.fixture
def train(cli, data, small):
    """`retrieval-cl train` on the tiny data into a folder."""

    def run(folder, *further):
        return cli("train", "--data", data, "-o", folder, *small, *further)

    return run


@pytest.fixture
def interrupt_at(monkeypatch):
    """Ctrl-C within step `step`."""

    def arrange(step):
        on_step = monitor.Monitor.on_step

        def and_interrupt(self, run, loss, embeddings):
            on_step(self, run, loss, embeddings)
            if run.step == step:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(monitor.Monitor, "on_step", and_interrupt)

    return arrange


@pytest.fixture
def full_disk(monkeypatch):
    """From now on nothing can be synced to disk."""

    def refuse(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(files, "_sync", refuse)


def test_ctrl_c_keeps_a_checkpoint_and_the_resumed_run_ends_in_the_same_weights(
    cli, train, trained, tmp_path, interrupt_at, monkeypatch
):
    with monkeypatch.context() as patch:
        interrupt_at(8)
        ran = train(tmp_path / "run")
        patch.undo()
    assert ran.code == 130
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000008"
    assert ran.err.splitlines()[-1] == (
        f"stopped after step 8 of 10; checkpoint kept in {checkpoint}; "
        f"go on with: retrieval-cl train {tmp_path / 'run'} --resume"
    )
    assert (checkpoint / "manifest.json").is_file() and not (tmp_path / "run" / "model").exists()
    monkeypatch.undo()
    ran = cli("train", tmp_path / "run", "--resume")
    assert ran.code == 0, ran.err
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "run", trained))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_ctrl_c_before_training_is_one_line(cli, trained, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval_cl.runs.evaluate.load", interrupted)
    ran = cli("eval", trained)
    assert (ran.code, ran.line) == (130, "interrupted")


def test_resume_with_other_settings_or_without_a_run_is_refused(cli, train, trained, tmp_path):
    ran = train(tmp_path / "none", "--resume")
    assert ran.code == 2 and "no run to resume (no config.yaml); start without --resume" in ran.line
    ran = cli("train", trained, "--resume", "--set", "mining.depth=7")
    assert ran.code == 2 and "started with mining.depth 100, now it is 7" in ran.line
    ran = cli("train", trained, "--resume", "--set", "training.lr=7")
    assert ran.code == 2 and "made with training.lr" in ran.err.splitlines()[-1]


def test_resume_on_other_data_is_refused(cli, trained, beir):
    edited = beir / "corpus.jsonl"
    edited.write_text(edited.read_text().replace("library", "module"))
    config = trained / "config.yaml"
    config.write_text(re.sub("path: .*", f"path: {beir}", config.read_text()))
    ran = cli("train", trained, "--resume")
    assert ran.code == 2
    assert "the run was started on other data: sha256" in ran.err.splitlines()[-1]


def test_run_that_stands_is_not_overwritten_unless_asked(train, trained):
    weights = trained / "model" / "model.safetensors"
    before = weights.read_bytes()
    ran = train(trained)
    assert ran.code == 2 and "holds a run already (model, checkpoints)" in ran.line
    assert weights.read_bytes() == before
    # Nothing is removed for a run that cannot start.
    ran = train(trained, "--overwrite", "--set", "training.batch_size=4000")
    assert ran.code == 2
    assert train(trained, "--overwrite").code == 0
    assert weights.read_bytes() == before  # the same seed, the same weights


def test_collapse_ends_training_with_its_signs(train, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "MIN_STD_RATIO", 2.0)
    ran = train(tmp_path / "run", "--set", "training.health_every=1")
    assert ran.code == 3
    last = ran.err.splitlines()[-1]
    assert last.startswith("training failed: collapse at step 3") and "training.lr" in last


def test_full_disk_in_training_leaves_no_half_checkpoint(train, tmp_path, full_disk, monkeypatch):
    from retrieval_cl.training.callbacks import Save

    on_step = Save.on_step

    def fill_first(self, run, loss, embeddings):
        full_disk()
        on_step(self, run, loss, embeddings)

    monkeypatch.setattr(Save, "on_step", fill_first)
    ran = train(tmp_path / "run")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("error: the disk is full: nothing half written was kept")
    assert not list((tmp_path / "run").rglob("*step-*")) and not list((tmp_path / "run").rglob("*.part-*"))


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("index", "RUN", "-o", "OUT"), "OUT"),
        (("embed", "RUN", "open", "-o", "OUT.npy"), "OUT.npy"),
        (("embed", "RUN", "open", "-o", "OUT.safetensors"), "OUT.safetensors"),
        (("embed", "RUN", "open", "-o", "OUT.parquet"), "OUT.parquet"),
        (("mine", "RUN", "-o", "OUT"), "OUT/negatives"),
        (("eval", "RUN", "-o", "OUT"), "OUT/results.json"),
    ],
)
def test_full_disk_leaves_nothing_under_the_final_name(cli, trained, tmp_path, full_disk, arguments, left):
    out = tmp_path / "out"
    full_disk()
    ran = cli(*(str(one).replace("RUN", str(trained)).replace("OUT", str(out)) for one in arguments))
    assert ran.code == 1
    assert "the disk is full" in ran.err.splitlines()[-1]
    assert not (tmp_path / left.replace("OUT", "out")).exists()
    assert not list(tmp_path.rglob("*.part-*"))


def test_index_that_stood_survives_a_full_disk(cli, trained, full_disk):
    before = (trained / "index" / "manifest.json").read_bytes()
    full_disk()
    assert cli("index", trained).code == 1
    assert (trained / "index" / "manifest.json").read_bytes() == before


def test_other_trouble_of_the_machine_is_one_line(cli, trained, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "v.npy"))

    monkeypatch.setattr("retrieval_cl.runs.embed.write_vectors", refuse)
    ran = cli("embed", trained, "open", "-o", tmp_path / "v.npy")
    assert (ran.code, ran.line) == (1, f"error: Permission denied ({tmp_path / 'v.npy'})")
