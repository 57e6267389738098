"""The page of one run, from the least that is known to all of it."""

from __future__ import annotations

from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Provenance
from retrieval_cl.reporting.training_report import TrainingReport, write_training_report

PROVENANCE = Provenance(command="retrieval-cl train configs/x.yaml", made_at="2026-01-01")


def test_a_run_of_which_only_the_loss_is_known_has_a_page(tmp_path, read):
    arm = Arm("run", [{"step": step, "loss": 3.0 - step / 10} for step in range(1, 9)])
    report = TrainingReport(name="x & y", model="an encoder", dim=32, arm=arm, provenance=PROVENANCE)
    write_training_report(tmp_path / "r.html", report)
    found = read((tmp_path / "r.html").read_text(encoding="utf8"))
    assert "An encoder, trained for 8 steps." in found.text
    assert len(found.all("section")) == 2
    assert len(found.all("figure")) == 1


def test_a_run_without_a_step_has_a_page(tmp_path, read):
    report = TrainingReport(name="x", model="m", dim=32, arm=Arm("run", []), provenance=PROVENANCE)
    write_training_report(tmp_path / "r.html", report)
    found = read((tmp_path / "r.html").read_text(encoding="utf8"))
    assert "no training step on record" in found.text
    assert not found.all("figure")


def test_a_full_run_shows_every_part(tmp_path, read, make):
    full = make()
    report = TrainingReport(
        name="x",
        model="an encoder",
        dim=256,
        arm=full.arms[1],
        provenance=PROVENANCE,
        data=full.data,
        results=full.results,
        comparisons=full.comparisons,
        scores=full.scores,
        examples=full.examples,
        mining=full.mining,
        seconds=full.seconds,
        next_commands=full.next_commands,
    )
    write_training_report(tmp_path / "r.html", report)
    found = read((tmp_path / "r.html").read_text(encoding="utf8"))
    assert len(found.all("section")) == 9
    assert len(found.all("figure")) == 4
    assert "recall@10 on dev ended at 0.618" in found.text
