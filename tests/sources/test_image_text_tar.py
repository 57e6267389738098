import io
import json
import tarfile

import numpy as np
import pytest
from image_text_files import load, named, pictures, png, refusal, split_seeds


def shard(path, members):
    """Writes a tar file of (name, bytes or text or JSON value)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, value in members:
            data = value if isinstance(value, bytes) else value.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(seed, text=None, key=None, suffix="png", **fields):
    """The members of one sample: its image, and its caption as text or its fields as JSON."""
    key = f"{seed:04d}" if key is None else key
    found = [(f"{key}.{suffix}", png(seed))]
    if text is not None:
        found.append((f"{key}.txt", text))
    if fields:
        found.append((f"{key}.json", json.dumps(fields)))
    return found


def test_an_image_and_its_text_of_one_key_are_a_sample(tmp_path):
    members = [
        *sample(1, "one\n"),
        ("readme", "no sample"),
        *sample(2, "two  words", key="deep/b.x", suffix="PNG"),
    ]
    # The partner need not stand beside it.
    members = [*members, ("0003.png", png(3)), *sample(4, "four"), ("0003.txt", "three")]
    data = load("image_text_tar", shard(tmp_path / "set.tar", members))
    # "b.x.PNG" is the sample "b" with the suffix ".x.png": no image of ours.
    assert pictures(data) == {1: ["one"], 3: ["three"], 4: ["four"]}
    assert data.made_by["broken"] == {"set/deep/b": "no image beside .x.png, .x.txt"}
    assert data.ids == ["set/0001", "set/0003", "set/0004"] and data.name == "set"


def test_json_members_give_captions_classes_and_splits(tmp_path):
    members = [
        *sample(1, captions=["a", "b"], kind="x", split="train"),
        *sample(2, captions=["c"], kind="y", split="val"),
        *sample(3, captions=["d"], kind="y", split="none"),
    ]
    data = load("image_text_tar", shard(tmp_path / "set.tar", members), label_column="kind")
    assert pictures(data) == {1: ["a", "b"], 2: ["c"]} and named(data) == ["x", "y"]
    assert split_seeds(data) == {"train": [1], "dev": [2]}


def test_text_comes_before_json_unless_a_field_is_named(tmp_path):
    path = shard(tmp_path / "set.tar", sample(1, "text", caption="json", long="the longer one"))
    assert pictures(load("image_text_tar", path)) == {1: ["text"]}
    named_field = load("image_text_tar", path, caption_columns=["long", "caption"])
    assert pictures(named_field) == {1: ["the longer one", "json"]}


@pytest.mark.parametrize("by", ["folder", "pattern"])
def test_shards_of_a_folder_or_a_pattern_are_read_in_order(tmp_path, by):
    for number in (8, 9, 10):
        shard(tmp_path / "shards" / f"s-{number:03d}.tar", sample(number, f"c{number}"))
    path = tmp_path / "shards" if by == "folder" else f"{tmp_path}/shards/s-{{008..010}}.tar"
    data = load("image_text_tar", path)
    assert data.ids == ["s-008/0008", "s-009/0009", "s-010/0010"] and data.name == "shards"
    assert pictures(data) == {8: ["c8"], 9: ["c9"], 10: ["c10"]}


def test_shards_that_are_all_named_by_splits_give_them(tmp_path):
    shard(tmp_path / "train-000.tar", sample(1, "a"))
    shard(tmp_path / "train-001.tar", sample(2, "b"))
    shard(tmp_path / "val-000.tar", sample(3, "c"))
    assert split_seeds(load("image_text_tar", tmp_path)) == {"train": [1, 2], "dev": [3]}


def test_a_sample_without_a_partner_is_named(tmp_path):
    members = [*sample(1, "one"), ("a.png", png(2)), ("b.txt", "no image"), *sample(3, "  ")]
    path = shard(tmp_path / "set.tar", members)
    data = load("image_text_tar", path, max_broken=3)
    assert pictures(data) == {1: ["one"]}
    assert data.made_by["broken"] == {
        "set/a": "no .txt or .json beside .png",
        "set/b": "no image beside .txt",
        "set/0003": "no caption",
    }
    assert "3 broken or missing images, source.max_broken is 2" in refusal(
        "image_text_tar", path, max_broken=2
    )


def offsets(path):
    with tarfile.open(path) as tar:
        return [(member.offset, member.offset_data, member.size) for member in tar]


@pytest.mark.parametrize("where", ["member", "header", "between", "end"])
def test_a_shard_that_is_cut_off_gives_what_stands_before_the_cut(tmp_path, where):
    path = shard(tmp_path / "set.tar", [*sample(1, "one"), *sample(2, "two")])
    header, start, size = offsets(path)[2]
    end = offsets(path)[3][1] + 512
    cut = {"member": start + size // 2, "header": header + 100, "between": header, "end": end}[where]
    path.write_bytes(path.read_bytes()[:cut])
    data = load("image_text_tar", path)
    assert pictures(data) == ({1: ["one"], 2: ["two"]} if where == "end" else {1: ["one"]})
    broken = data.made_by["broken"]
    assert broken["set.tar"].startswith("cut off or no tar file after ") and len(broken) == 1
    assert "'set.tar': cut off" in refusal("image_text_tar", path, max_broken=0)


def test_a_shard_that_is_no_tar_file_is_left_out_by_name_among_others(tmp_path):
    shard(tmp_path / "a.tar", sample(1, "one"))
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "c.tar").write_bytes(b"x" * 2000)
    data = load("image_text_tar", tmp_path)
    assert pictures(data) == {1: ["one"]} and set(data.made_by["broken"]) == {"b.tar", "c.tar"}
    assert "no image with a caption; first, 'c.tar': " in refusal("image_text_tar", tmp_path / "c.tar")


@pytest.mark.parametrize("stream", [False, True])
def test_broken_images_of_a_shard_are_named(tmp_path, stream):
    members = [*sample(1, "one"), ("b.png", b"no image"), ("b.txt", "b")]
    data = load("image_text_tar", shard(tmp_path / "set.tar", members), stream=stream, size=6)
    assert pictures(data) == {1: ["one"]}
    assert data.made_by["broken"] == {"set/b": "no image of a kind that Pillow reads"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("set.tar.gz", "compressed, so no image can be read at its place; unpack the shard"),
        ("set.tgz", "compressed, so"),
        ("gone.tar", "no such file; expected a shard"),
        ("s-{010..008}.tar", "{010..008} counts down; write {008..010}"),
        ("empty", "no .tar file here"),
    ],
)
def test_a_path_without_readable_shards_is_one_line(tmp_path, name, line):
    (tmp_path / "empty").mkdir()
    for compressed in ("set.tar.gz", "set.tgz"):
        (tmp_path / compressed).write_bytes(b"x")
    assert line in refusal("image_text_tar", tmp_path / name)


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ([("a.png", b"x"), ("a.json", "{")], "set.tar, member 2: broken JSON"),
        ([("a.png", b"x"), ("a.json", "[]")], "set.tar, member 2: expected a JSON object"),
        ([("a.png", b"x"), ("a.txt", b"\xff")], "set.tar, member 2: not UTF-8 (byte 0xff)"),
        (
            [("a.png", b"x"), ("a.json", '{"caption": 3}')],
            "set.tar, member 1: column 'caption' must be a string",
        ),
        ([("a.png", b"x"), ("a.PNG", b"y")], "set.tar, member 2: 'a.PNG' stands twice"),
    ],
)
def test_a_broken_member_is_named_by_shard_and_number(tmp_path, members, line):
    assert line in refusal("image_text_tar", shard(tmp_path / "set.tar", members))


def test_shards_of_one_name_in_two_folders_are_refused(tmp_path):
    for folder in "12":
        shard(tmp_path / folder / "s.tar", sample(int(folder), "c", key="x"))
    assert "image 's/x' stands in 2 files" in refusal("image_text_tar", f"{tmp_path}/{{1..2}}/s.tar")


def test_batches_of_a_stream_are_those_of_decoded_images_in_any_order(tmp_path):
    for number in range(3):
        members = [member for seed in range(5) for member in sample(5 * number + seed, f"c{seed}")]
        shard(tmp_path / f"s{number}.tar", members)
    streamed = load("image_text_tar", tmp_path, stream=True, size=6, workers=3)
    decoded = load("image_text_tar", tmp_path, size=6)
    assert streamed.ids == decoded.ids and streamed.same.tolist() == decoded.same.tolist()
    rows = np.random.default_rng(0).permutation(15)
    assert (streamed.images.take(rows) == decoded.images.take(rows)).all()
    # Taken again, alone or among others, a row has the same pixels.
    assert (streamed.images.take(rows[3:5]) == decoded.images.take(rows)[3:5]).all()
