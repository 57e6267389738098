import io
import os
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import psutil
import pytest
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images import decode
from retrieval_cl.sources.images.config import Fit
from retrieval_cl.sources.images.encoded import ListedItems
from retrieval_cl.sources.images.pixels import FITS, decode_image, digest


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunks(items, *, size=None, shape=(4, 6), rows=2, workers=1):
    listed = ListedItems([f"image {row}" for row in range(len(items))], items)
    starts = range(0, len(items), rows)
    return list(
        decode.decode_chunks(listed, starts=starts, rows=rows, shape=shape, size=size, workers=workers)
    )


def test_a_lossless_image_gives_its_pixels():
    pixels = noise(4, 6, 3)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels)), None), pixels)


def test_bytes_file_and_array_give_the_same_pixels(tmp_path):
    pixels = noise(9, 6, 3)
    data = encoded(Image.fromarray(pixels))
    (tmp_path / "a.png").write_bytes(data)
    found = [decode_image(item, 5) for item in (data, tmp_path / "a.png", pixels)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0].shape == (5, 5, 3)


def test_grey_and_palette_images_become_rgb():
    grey = noise(4, 6)
    found = decode_image(encoded(Image.fromarray(grey)), None)
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))
    few = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8))
    palette = encoded(few.convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
    np.testing.assert_array_equal(decode_image(palette, None), np.asarray(few))


def test_sixteen_bit_grey_is_scaled_not_cut_off():
    deep = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    found = decode_image(encoded(Image.fromarray(deep)), None)
    np.testing.assert_array_equal(found[:, :, 0], [[0, 1, 128, 255]])


def test_an_image_is_turned_as_its_exif_tag_says():
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_image(encoded(Image.fromarray(pixels), exif=exif), None)
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))


def test_the_middle_square_is_taken_and_resized_without_aliasing():
    wide = noise(8, 24, 3)
    # The whole brought to a height of 4, as Pillow does it, and its middle 4 columns.
    whole = np.asarray(Image.fromarray(wide).resize((12, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_image(wide, 4), whole[:, 4:8])
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decode_image(stripes, 8)[2:-2, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_wanted_size_is_not_resampled(fit):
    pixels = noise(7, 7, 3)
    np.testing.assert_array_equal(decode_image(pixels, 7, fit=fit), pixels)


def test_the_settings_name_every_fit_there_is():
    assert get_args(Fit) == tuple(FITS)


@pytest.mark.parametrize("turned", [False, True])
def test_a_padded_image_stands_whole_in_the_middle_on_the_colour_of_its_edge(turned):
    pixels = np.full((4, 8, 3), (250, 10, 40), dtype=np.uint8)
    # One odd pixel of the edge does not change its median colour.
    pixels[0, 0], pixels[1:3, 2:6] = 0, noise(2, 4, 3)
    wanted = np.full((8, 8, 3), (250, 10, 40), dtype=np.uint8)
    wanted[2:6] = pixels
    given = pixels.transpose(1, 0, 2) if turned else pixels
    found = decode_image(given, 8, fit="pad")
    np.testing.assert_array_equal(found.transpose(1, 0, 2) if turned else found, wanted)


def test_a_stretched_image_has_all_its_pixels_at_another_aspect():
    pixels = noise(6, 12, 3)
    whole = np.asarray(Image.fromarray(pixels).resize((6, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_image(pixels, 6, fit="stretch"), whole)


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_one_line_is_fitted_to_any_size(fit):
    assert decode_image(noise(1, 300, 3), 16, fit=fit).shape == (16, 16, 3)


def test_a_large_jpeg_at_a_small_size_looks_as_if_decoded_whole():
    y, x = np.mgrid[0:400, 0:600]
    smooth = np.stack([x * 255 // 600, y * 255 // 400, (x + y) * 255 // 1000], axis=2).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    whole = decode_image(np.asarray(Image.open(io.BytesIO(data))), 32)
    assert np.abs(decode_image(data, 32).astype(int) - whole).max() <= 3


def test_broken_images_are_named_with_a_reason_and_leave_zeros(tmp_path):
    whole = encoded(Image.fromarray(noise(4, 6, 3)))
    cut = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:900]
    items = [whole, b"no image", None, tmp_path / "gone.png", cut, b""]
    found = chunks(items, rows=4)
    broken = {row: reason for chunk in found for row, reason in chunk.broken.items()}
    assert broken.keys() == {1, 2, 3, 4, 5}
    assert broken[1] == broken[5] == "no image of a kind that Pillow reads"
    assert broken[2] == "no image in this row" and broken[3] == "no such file"
    assert "truncated" in broken[4]
    assert not found[0].pixels[1:].any() and found[0].pixels[0].any()


def test_an_image_of_another_size_is_named_and_the_setting_too():
    items = [noise(4, 6, 3), noise(5, 6, 3)]
    with pytest.raises(InputError, match=r"image 'image 1' has 6 x 5 pixels, others 6 x 4; set source.size"):
        chunks(items)


def test_the_first_image_that_can_be_decoded_gives_the_shape():
    items = [None, b"x", noise(4, 6, 3)]
    listed = ListedItems(["a", "b", "c"], items)
    assert decode.common_shape(listed, None) == (4, 6)
    assert decode.common_shape(listed, 9) == (9, 9)
    with pytest.raises(InputError, match=r"none of 2 images can be decoded; the first, 'a': no image"):
        decode.common_shape(ListedItems(["a", "b"], items[:2]), None)


def test_processes_give_the_same_chunks_in_order():
    items = [encoded(Image.fromarray(noise(4, 6, 3, seed=seed))) for seed in range(11)]
    items[5] = b"broken"
    one, two = chunks(items), chunks(items, workers=2)
    assert [chunk.start for chunk in one] == [chunk.start for chunk in two] == list(range(0, 11, 2))
    for here, there in zip(one, two, strict=True):
        np.testing.assert_array_equal(here.pixels, there.pixels)
        np.testing.assert_array_equal(here.digests, there.digests)
        assert here.broken == there.broken


def test_digests_are_equal_where_pixels_and_shape_are():
    pixels = noise(4, 6, 3)
    assert digest(pixels).tolist() == digest(pixels[:, ::-1].copy()[:, ::-1]).tolist()
    assert digest(pixels).tolist() != digest(pixels.reshape(6, 4, 3)).tolist()


def test_chunks_cover_all_rows_and_hold_few_bytes():
    starts = decode.chunk_starts(10_000, (224, 224))
    assert starts.step * 3 * 224 * 224 <= decode.CHUNK_BYTES and starts.stop == 10_000
    assert decode.chunk_starts(3, (4096, 4096)).step == 1


def test_what_a_worker_imports_is_light():
    code = "import sys, retrieval_cl.sources.images.decode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_that_dies_is_one_line_that_helps(monkeypatch):
    monkeypatch.setattr(decode, "_decode", os._exit)
    tasks = ListedItems(["a", "b"], [noise(4, 6, 3)] * 2)
    monkeypatch.setattr(decode._Task, "unpack", lambda task: (3,))
    found = decode.decode_chunks(tasks, starts=[0, 1], rows=1, shape=(4, 6), size=None, workers=2)
    with pytest.raises(InputError, match=r"a process that decodes died: .* set source.workers to 1"):
        list(found)


ENDLESS = """
from retrieval_cl.sources.images.decode import decode_chunks
from retrieval_cl.sources.images.encoded import ListedItems
if __name__ == "__main__":
    listed = ListedItems(["a"] * 100_000, [b"broken"] * 100_000)
    for _ in decode_chunks(listed, starts=range(100_000), rows=1, shape=(4, 4), size=None, workers=2):
        print("decoding", flush=True)
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_was_killed(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, str(tmp_path / "endless.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout.readline() == "decoding\n"
        children = psutil.Process(started.pid).children()
        started.kill()
    assert len(children) >= 2
    end = time.monotonic() + 20
    while time.monotonic() < end and any(child.is_running() for child in children):
        time.sleep(0.1)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
