"""Whatever bytes a file holds: it is read, or one error of a kind that users are told.

Anything else than ``ValueError`` and ``OSError`` would be a traceback on the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
from functools import cache

import av
import cv2
import numpy as np
import pytest
from dataset_trees import images, make_coco, make_mot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spmtrack_core.data import coco, folder, mot
from spmtrack_core.data.clips import read_flags
from spmtrack_core.data.images import read_image
from spmtrack_core.data.sequence import read_boxes
from spmtrack_core.data.video import open_frames
from spmtrack_core.settings import load_yaml
from spmtrack_core.training.config import TrainConfig

few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def told():
    """Errors that the command line shows in one line, which must not be empty."""
    try:
        yield
    except (ValueError, OSError) as error:
        assert str(error).strip()


def broken(whole: bytes) -> st.SearchStrategy[bytes]:
    """The file cut off anywhere, with bytes replaced, doubled or left out; or any bytes at all."""
    place = st.integers(0, len(whole))
    change = st.tuples(place, place, st.binary(max_size=40))
    return st.one_of(
        place.map(lambda end: whole[:end]),
        st.lists(change, min_size=1, max_size=4).map(lambda changes: _changed(whole, changes)),
        st.binary(max_size=200),
    )


def _changed(whole: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for start, stop, new in changes:
        whole = whole[:start] + new + whole[max(start, min(stop, start + 50)) :]
    return whole


words = st.sampled_from(
    [
        "1",
        "2.5",
        "-3",
        "nan",
        "inf",
        "1e999",
        "99999999999999999999",
        "",
        " ",
        "\t",
        ",",
        ";",
        "\n",
        "\r\n",
        "\r",
        "\x00",
        "x",
        "[Sequence]",
        "=",
        "seqLength=12",
        "%",
        "ü",
        "\ufeff",
        "\u2028",
        "\uff11",
    ]
)
texts = st.one_of(
    st.lists(words).map(lambda parts: "".join(parts).encode()),
    st.lists(words).map(lambda parts: "".join(parts).encode("utf-16")),
    st.binary(max_size=200),
)


@few
@given(texts)
def test_boxes_and_flags(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with told():
        boxes = read_boxes(tmp_path / "a.txt")
        assert boxes.shape == (len(boxes), 4)
    with told():
        assert len(read_flags(tmp_path / "a.txt", 3)) == 3


@few
@given(st.one_of(texts, broken(b"[Sequence]\r\nname=a\r\nimDir=img1\r\nseqLength=12\r\n")))
def test_sequence_information(tmp_path, content):
    if not (tmp_path / "train").exists():
        make_mot(tmp_path)
    (tmp_path / "train/MOT17-02-FRCNN/seqinfo.ini").write_bytes(content)
    for entry in mot.find(tmp_path, "train"):
        with told():
            entry.read()


@few
@given(st.one_of(texts, broken(b"2,1,2,3,5,6,1,1,1\n4,1,3,3,5,6,1,1,0.5\n")))
def test_rows_of_many_targets(tmp_path, content):
    if not (tmp_path / "train").exists():
        make_mot(tmp_path)
    (tmp_path / "train/MOT17-02-FRCNN/gt/gt.txt").write_bytes(content)
    for entry in mot.find(tmp_path, "train"):
        with told():
            entry.read()


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from(["id", "image_id", "bbox", "iscrowd", "file_name", "images"]), inner
        ),
    ),
    max_leaves=8,
)
notes = st.fixed_dictionaries(
    {
        "id": values,
        "image_id": st.one_of(st.just(9), values),
        "bbox": st.one_of(values, st.lists(st.one_of(st.floats(), st.integers()), max_size=5)),
    },
    optional={"iscrowd": values},
)
annotation_files = st.fixed_dictionaries(
    {
        "images": st.one_of(values, st.just([{"id": 9, "file_name": "000000000009.jpg"}])),
        "annotations": st.one_of(values, st.lists(st.one_of(notes, values), max_size=3)),
    }
)


@few
@given(
    st.one_of(annotation_files, values).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=100)
    | st.just(b"[" * 5000)
)
def test_annotations(tmp_path, content):
    if not (tmp_path / "annotations").exists():
        make_coco(tmp_path)
    (tmp_path / "annotations" / "instances_train2017.json").write_bytes(content)
    (entry,) = coco.find(tmp_path, "train")
    with told():
        list(entry.read())


@few
@given(
    texts
    | broken(b"data: mixed\nvideos:\n  datasets:\n    - {name: coco, root: /data}\n")
    | st.sampled_from([b"[" * 1200, b"a: 2024-99-99", b"? [1]\n: 2", b"&a [*a]", b"!!int 1_"])
)
def test_settings(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with told():
        load_yaml(tmp_path / "a.yaml", TrainConfig)


IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), (64, 48))
IMAGES = {
    suffix: cv2.imencode(suffix, IMAGE)[1].tobytes()
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm")
}


@pytest.mark.parametrize("suffix", IMAGES)
@few
@given(data=st.data())
def test_images(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data.draw(broken(IMAGES[suffix])))
    with told():
        image = read_image(path)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


@cache  # Matroska has random numbers of a random length in it
def made(form: str, codec: str) -> bytes:
    memory = io.BytesIO()
    with av.open(memory, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shift in range(6):
            picture = av.VideoFrame.from_ndarray(np.roll(IMAGE, shift, 1), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return memory.getvalue()


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4")],
)
@few
@given(data=st.data())
def test_videos(tmp_path, form, codec, data):
    path = tmp_path / "a.video"
    path.write_bytes(data.draw(broken(made(form, codec))))
    with told():
        for frame in open_frames(path):
            assert frame.dtype == np.uint8
            assert frame.shape[2] == 3


@few
@given(st.binary(max_size=100))
def test_folders_of_clips(tmp_path, content):
    images(tmp_path / "a", ["1.png"])
    (tmp_path / "a" / "groundtruth.txt").write_bytes(content)
    (tmp_path / "b.mp4").write_bytes(content)
    (tmp_path / "b.txt").write_bytes(content)
    for entry in folder.find(tmp_path):
        with told():
            list(entry.read())
