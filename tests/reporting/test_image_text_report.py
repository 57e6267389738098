import re

from retrieval_cl.evaluation.significance import Interval
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, Provenance
from retrieval_cl.reporting.image_text_report import ImageTextReport, write_image_text_report


def make_report(**changes):
    interval = Interval(0.5, 0.4, 0.6)
    table = {name: {"success@1": interval, "success@10": interval} for name in ("before training", "trained")}
    records = [{"step": step, "loss": 2.0 - step / 10, "mean_success@10": step / 20} for step in (1, 5, 10)]
    settings = {
        "name": "tiny",
        "model": "a resnet image encoder and static text encoder, vectors of 8 numbers, by clip",
        "dim": 8,
        "arm": Arm("tiny", records),
        "provenance": Provenance(command="retrieval-cl train tiny.yaml", made_at="2026-11-29"),
        "metric": "mean_success@10",
        "results": {"text to image": table, "image to text": table},
        "headline": ("text to image", "success@10"),
        "comparisons": [Comparison("trained", "before training", "text to image success@10", interval, 0.01)],
        "protocol": {"retrieval": "4 images and 3 captions"},
        "captions_found": [[Tile(None, "two dogs"), Tile(b"\x89PNG", "0.91", True)]],
    }
    return ImageTextReport(**(settings | changes))


def written(tmp_path, **changes):
    write_image_text_report(tmp_path / "report.html", make_report(**changes))
    return (tmp_path / "report.html").read_text()


def test_page_begins_with_the_direction_it_speaks_of(tmp_path):
    page = written(tmp_path)
    assert "text to image success@10, 0.400" in page
    assert "trained for 10 steps; mean_success@10 on dev ended at 0.500" in page


def test_no_two_shapes_of_a_page_have_one_id(tmp_path):
    ids = re.findall(r'\bid="([^"]+)"', written(tmp_path))
    assert len(ids) == len(set(ids)) and sum("metrics" in one for one in ids) > 4


def test_what_was_asked_for_in_words_stands_before_its_images(tmp_path):
    page = written(tmp_path)
    assert page.index("two dogs") < page.index("0.91")
    assert "Images and the captions found for them" not in page


def test_a_run_without_results_says_only_how_it_was_trained(tmp_path):
    page = written(tmp_path, results={}, comparisons=[], protocol={}, captions_found=[])
    assert "What the model finds" not in page and "trained for 10 steps" in page
