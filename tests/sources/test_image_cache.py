import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.sources.images import cache, decode
from retrieval_cl.sources.images.encoded import ListedItems
from retrieval_cl.sources.images.placed import DeviceImages, PickedImages, to_device

OPTIONS = {"size": None, "memory_gb": 1.0, "workers": 1, "max_broken": 10}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(decode, "CHUNK_ROWS", 4)


def png(seed, shape=(5, 7, 3)):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


class Counted:
    """Images that remember which rows were read, and stop the run at one of them."""

    def __init__(self, count=14, stop_at=None, broken=()):
        self.items = [b"broken" if row in broken else png(row) for row in range(count)]
        self.names = [f"img/{row}.png" for row in range(count)]
        self.reads, self.stop_at = [], stop_at

    def __len__(self):
        return len(self.items)

    def read(self, start, stop):
        if self.stop_at is not None and stop > self.stop_at:
            raise KeyboardInterrupt
        # The first image is read alone, for its shape.
        self.reads += [] if stop - start == 1 else range(start, stop)
        return self.items[start:stop]


def to_folder(encoded, folder, **options):
    return cache.decode_to_folder(encoded, folder, stamp="s", **(OPTIONS | options))


def test_memory_folder_map_and_device_hold_the_same_bits(tmp_path):
    encoded = Counted(broken=(6,))
    memory = cache.decode_to_memory(encoded, **OPTIONS)
    made, found = to_folder(encoded, tmp_path), to_folder(encoded, tmp_path)
    mapped = to_folder(encoded, tmp_path, memory_gb=1e-9)
    assert isinstance(mapped.pixels, np.memmap) and not isinstance(found.pixels, np.memmap)
    rows = np.array([3, 13, 0, 3], dtype=np.int64)
    wanted = ArrayImages(memory.pixels).take(rows)
    for other in (made, found, mapped):
        np.testing.assert_array_equal(memory.pixels, other.pixels)
        np.testing.assert_array_equal(memory.digests, other.digests)
        assert memory.broken == other.broken == {6: "no image of a kind that Pillow reads"}
        on_device = to_device(ArrayImages(other.pixels), torch.device("cpu"), max_gb=1.0)
        assert isinstance(on_device, DeviceImages) and on_device.size == (5, 7) and len(on_device) == 14
        assert torch.equal(on_device.take(rows), wanted)
        assert on_device.take(rows).stride() == wanted.stride()


def test_images_larger_than_the_budget_stay_where_they_are():
    images = ArrayImages(np.zeros((4, 5, 7, 3), dtype=np.uint8))
    assert to_device(images, torch.device("cpu"), max_gb=4 * 5 * 7 * 3 / 1e9 - 1e-12) is images
    assert to_device(images, torch.device("cpu"), max_gb=4 * 5 * 7 * 3 / 1e9) is not images


def test_picked_images_are_numbered_anew():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 3), dtype=np.uint8)
    picked = PickedImages(ArrayImages(pixels), np.array([5, 1, 2]))
    assert len(picked) == 3 and picked.size == (2, 3)
    assert torch.equal(picked.take(np.array([2, 0])), torch.from_numpy(pixels[[2, 5]]).permute(0, 3, 1, 2))


def test_what_is_decoded_is_found_again_and_not_read(tmp_path):
    to_folder(Counted(), tmp_path)
    again = Counted()
    to_folder(again, tmp_path)
    assert again.reads == []


def test_two_who_want_the_same_images_decode_them_once(tmp_path):
    class Slow(Counted):
        def read(self, start, stop):
            time.sleep(0.02)
            return super().read(start, stop)

    both = [Slow(), Slow()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: to_folder(each, tmp_path), both))
    assert sorted(len(each.reads) for each in both) == [0, 14]
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)


def test_a_killed_decode_goes_on_where_it_stopped(tmp_path):
    killed = Counted(stop_at=9, broken=(2,))
    with pytest.raises(KeyboardInterrupt):
        to_folder(killed, tmp_path)
    assert killed.reads == list(range(8))
    again = Counted(broken=(2,))
    found = to_folder(again, tmp_path)
    assert again.reads == list(range(8, 14))
    whole = cache.decode_to_memory(Counted(broken=(2,)), **OPTIONS)
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    assert found.broken == whole.broken


def test_a_half_written_folder_is_never_taken(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        to_folder(Counted(stop_at=9), tmp_path)
    [part] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert part.name.endswith(".part") and not (part / MANIFEST).exists()
    # A chunk whose pixels did not reach the disk, and a line that was cut off, count as not done.
    pixels = np.load(part / cache.PIXELS, mmap_mode="r+")
    pixels[5] += 1
    pixels.flush()
    with (part / cache.DONE).open("a") as log:
        log.write('{"start": 8, "st')
    again = Counted()
    found = to_folder(again, tmp_path)
    assert again.reads == list(range(4, 14))
    np.testing.assert_array_equal(found.pixels, cache.decode_to_memory(Counted(), **OPTIONS).pixels)
    [whole] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert sorted(path.name for path in whole.iterdir()) == [cache.DIGESTS, MANIFEST, cache.PIXELS]


def test_another_source_size_or_decoder_is_another_folder(monkeypatch):
    keys = [cache.cache_key("s", None), cache.cache_key("t", None), cache.cache_key("s", 32)]
    keys.append(cache.cache_key("s", 32, fit="pad"))
    monkeypatch.setattr(cache, "DECODER", cache.DECODER + 1)
    assert len({*keys, cache.cache_key("s", None)}) == 5


def test_too_many_broken_images_stop_the_run_by_name(tmp_path):
    line = (
        r"^3 broken or missing images, source.max_broken is 2: 'img/1.png': no image of a kind that Pillow "
        r"reads; 'img/2.png': [^;]*; 'img/3.png': [^;]*$"
    )
    encoded = Counted(broken=(1, 2, 3))
    with pytest.raises(InputError, match=line):
        cache.decode_to_memory(encoded, **(OPTIONS | {"max_broken": 2}))
    with pytest.raises(InputError, match=line):
        to_folder(encoded, tmp_path, max_broken=2)
    assert len(to_folder(encoded, tmp_path, max_broken=3).broken) == 3
    with pytest.raises(InputError, match=line):
        to_folder(encoded, tmp_path, max_broken=2)


def test_the_run_stops_at_the_limit_not_at_the_end():
    encoded = Counted(count=40, broken=range(1, 40))
    with pytest.raises(InputError, match=r"^3 broken"):
        cache.decode_to_memory(encoded, **(OPTIONS | {"max_broken": 2}))
    assert encoded.reads == list(range(4))


def test_images_that_do_not_fit_name_the_settings_that_help():
    with pytest.raises(InputError, match=r"14 decoded images of 7 x 5 pixels take .* set source.cache_dir"):
        cache.decode_to_memory(Counted(), **(OPTIONS | {"memory_gb": 1e-6}))


def test_a_damaged_folder_is_named(tmp_path):
    to_folder(Counted(), tmp_path)
    [whole] = [path for path in tmp_path.iterdir() if path.is_dir()]
    (whole / cache.PIXELS).write_bytes(b"")
    with pytest.raises(InputError, match=r"its files are damaged; delete the folder"):
        to_folder(Counted(), tmp_path)


def test_the_manifest_tells_what_lies_there(tmp_path):
    to_folder(Counted(broken=(3,)), tmp_path)
    [path] = tmp_path.glob(f"*/{MANIFEST}")
    manifest = json.loads(path.read_text())
    assert manifest["num_images"] == 14 and manifest["shape"] == [5, 7]
    assert manifest["broken"] == [[3, "no image of a kind that Pillow reads"]]


def test_uneven_images_are_brought_to_one_size(tmp_path):
    listed = ListedItems(["a", "b"], [png(0, (5, 9, 3)), png(1, (12, 7, 3))])
    found = to_folder(listed, tmp_path, size=4)
    assert found.pixels.shape == (2, 4, 4, 3)
