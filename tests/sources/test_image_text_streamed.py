import hashlib
import io

import numpy as np
import pytest
from image_text_files import load, noise, pictures, png
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.image_text.scans import kept_scan
from retrieval_cl.sources.image_text.streamed import StreamedImages
from retrieval_cl.sources.images.encoded import ListedItems
from retrieval_cl.sources.images.pixels import FITS, decode_image, digest


def cut_off():
    """A JPEG file whose header is whole and whose pixels are not."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        stream, "JPEG"
    )
    return stream.getvalue()[:900]


CUT = cut_off()


def streamed(items, **options):
    names = [f"i{row}" for row in range(len(items))]
    values = {"side": 6, "fit": "crop", "threads": 2, "max_broken": 1} | options
    return StreamedImages(ListedItems(names, items), **values)


@pytest.mark.parametrize("fit", FITS)
def test_streamed_images_are_decoded_as_all_others_are(fit):
    wide = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    images = streamed([wide, png(1), noise(2)], fit=fit, side=4)
    found = images.take(np.array([2, 0, 0])).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found[0], decode_image(noise(2), 4, fit=fit))
    np.testing.assert_array_equal(found[1], decode_image(wide, 4, fit=fit))
    np.testing.assert_array_equal(found[2], found[1])
    assert images.size == (4, 4) and len(images) == 3


def test_a_scan_sees_copies_and_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    images = streamed([png(3), tmp_path / "a.png", b"x", None, tmp_path / "gone.png", noise(3), CUT])
    digests, broken = images.scan()
    assert digests[0].tobytes() == digests[1].tobytes() == hashlib.blake2b(png(3), digest_size=16).digest()
    assert digests[5].tobytes() == digest(noise(3)).tobytes()
    # That a file breaks off shows when it is decoded.
    assert broken == {
        2: "no image of a kind that Pillow reads",
        3: "no image in this row",
        4: "no such file",
    }


def test_an_image_that_breaks_while_streamed_is_black_named_once_and_counted():
    images = streamed([png(1), CUT, CUT], max_broken=1)
    with pytest.warns(UserWarning, match=r"image 'i1' is broken \(.*\): a black one .*1 of at most 1"):
        found = images.take(np.array([0, 1]))
    assert not found[1].any() and found[0].any() and list(images.lost) == ["i1"]
    assert not images.take(np.array([1]))[0].any()
    with pytest.raises(InputError, match=r"2 broken or missing images, source\.max_broken is 1: 'i1': "):
        images.take(np.array([2]))


def test_what_was_lost_before_counts_when_an_image_breaks_while_streamed(tmp_path):
    for name, data in (("0.png", png(0)), ("1.png", CUT)):
        (tmp_path / name).write_bytes(data)
    rows = ["image,caption", "0.png,a", "1.png,b", "gone.png,c"]
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    data = load("image_text_table", tmp_path / "set.csv", stream=True, size=6, max_broken=1)
    assert data.ids == ["0.png", "1.png"] and data.made_by["broken"] == {"gone.png": "no such file"}
    with pytest.raises(
        InputError, match=r"2 broken or missing images, source\.max_broken is 1: 'gone\.png': "
    ):
        data.images.take(np.array([1]))


def test_a_table_streams_its_files(tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    rows = [f"{seed}.png,c{seed}" for seed in range(3)]
    (tmp_path / "set.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    data = load("image_text_table", tmp_path / "set.csv", stream=True, size=6)
    assert pictures(data) == {0: ["c0"], 1: ["c1"], 2: ["c2"]}


def test_a_kept_scan_is_read_again_until_the_files_change(tmp_path, monkeypatch):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(png(min(seed, 1)))
    rows = [f"{seed}.png,c{seed}" for seed in (0, 1, 2, 3)]
    (tmp_path / "set.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    options = {"stream": True, "size": 6, "cache_dir": str(tmp_path / "kept")}
    first = load("image_text_table", tmp_path / "set.csv", **options)
    assert first.same.tolist() == [0, 1, 1] and first.made_by["broken"] == {"3.png": "no such file"}
    scans = []
    scan = StreamedImages.scan
    monkeypatch.setattr(StreamedImages, "scan", lambda images: scans.append(1) or scan(images))
    again = load("image_text_table", tmp_path / "set.csv", **options)
    assert not scans and again.same.tolist() == [0, 1, 1] and again.made_by == first.made_by
    (tmp_path / "2.png").write_bytes(png(2))
    assert load("image_text_table", tmp_path / "set.csv", **options).same.tolist() == [0, 1, 2]
    assert scans == [1]


def test_a_damaged_scan_is_made_anew(tmp_path):
    def scan():
        return np.arange(32, dtype=np.uint8).reshape(2, 16), {1: "why"}

    kept_scan(tmp_path, "s", scan, num_images=2)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    digests, broken = kept_scan(tmp_path, "s", scan, num_images=2)
    assert digests.tolist() == scan()[0].tolist() and broken == {1: "why"}
    assert kept_scan(tmp_path, "s", lambda: pytest.fail("read anew"), num_images=2)[1] == {1: "why"}
