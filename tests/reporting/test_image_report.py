"""The page of one image run, from the least that is known to all of it, and that on copies."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.copies_report import CopiesReport, write_copies_report
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, Provenance
from retrieval_cl.reporting.image_report import ImageReport, write_image_report

PROVENANCE = Provenance(command="retrieval-cl train configs/x.yaml", made_at="2026-01-01", hardware="2 cores")
ROW = [Tile(b"\x89PNG", "cat"), Tile(b"x", "0.9 cat", True), Tile(b"x", "0.8 dog", False)]


@dataclass(frozen=True)
class Span:
    mean: float
    low: float
    high: float


def records():
    for step in range(1, 9):
        health = {"std_ratio": 0.9, "effective_rank": 20, "alignment": 0.4, "uniformity": -3.0}
        yield {"step": step, "loss": 5.0 - step / 10, "dev": {"knn_accuracy": 0.5 + step / 20}} | {
            "health": health
        }


def test_a_run_of_which_only_the_loss_is_known_has_a_page(tmp_path, read):
    arm = Arm("trained encoder", [{"step": step, "loss": 3.0 - step / 10} for step in range(1, 9)])
    report = ImageReport(name="x & y", model="a convnet", dim=32, arm=arm, provenance=PROVENANCE)
    write_image_report(tmp_path / "r.html", report)
    found = read((tmp_path / "r.html").read_text(encoding="utf8"))
    assert "A convnet, trained without labels for 8 steps." in found.text
    assert len(found.all("section")) == 2
    assert not found.all("img")


def test_a_full_run_shows_every_part(tmp_path, read, make):
    metric = "warped kNN accuracy"
    report = ImageReport(
        name="x",
        model="a convnet",
        dim=32,
        arm=Arm("trained encoder", list(records())),
        provenance=PROVENANCE,
        headline=metric,
        results={
            "trained encoder": {metric: Span(0.9, 0.88, 0.92), "linear accuracy": Span(0.93, 0.9, 0.95)},
            "raw pixels": {metric: Span(0.77, 0.74, 0.8)},
        },
        comparisons=[Comparison("trained encoder", "raw pixels", metric, Span(0.13, 0.1, 0.16), 0.0001)],
        protocol={"knn": "kNN, k 10, cosine"},
        images={"images": "1,797 of 8 x 8 pixels"},
        neighbours=[ROW, ROW],
        neighbours_of="A sample.",
        mining=make().mining,
        seconds={"train": 3.0},
        next_commands=[("Index", "retrieval-cl index runs/x")],
    )
    write_image_report(tmp_path / "r.html", report)
    found = read((tmp_path / "r.html").read_text(encoding="utf8"))
    text = found.text.replace("\N{NO-BREAK SPACE}", " ")
    assert len(found.all("section")) == 9
    assert len(found.all("img")) == 6
    assert "knn_accuracy on dev ended at 0.900" in text
    assert "The trained encoder is better than raw pixels in warped kNN accuracy by 13.0 points" in text
    assert "95% Wilson interval" in text and "bootstrap" not in text
    assert "Trained encoder: no sign of collapse" in text and "two views of an image are closer" in text
    for words in ("kNN, k 10, cosine", "1,797 of 8 x 8 pixels", "retrieval-cl index runs/x", "2 cores"):
        assert words in text, words


def test_page_on_copies_says_whether_held_out_images_leak(tmp_path, read):
    def write(between, **parts):
        report = CopiesReport(
            name="photos",
            num_images=100,
            within={"train": (3, 5), "test": (0, 0)},
            between=between,
            provenance=PROVENANCE,
            **parts,
        )
        write_copies_report(tmp_path / "c.html", report)
        return read((tmp_path / "c.html").read_text(encoding="utf8"))

    clean = write({("train", "test"): (0, 0)})
    assert "No image was found in two splits." in clean.text
    assert "Of 100 images 3 have the pixels of an earlier one of their split, and 2 more" in clean.text
    leaky = write({("train", "test"): (1, 4)}, leaks=[ROW[:2]] * 2, numbers={"leaks": 4})
    assert "4 held-out images are copies of images in another split" in leaky.text
    assert "The first 2 of 4." in leaky.text
    assert len(leaky.all("img")) == 4
