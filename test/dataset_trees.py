"""Tiny copies of the layouts of video datasets."""

from __future__ import annotations

import json

import av
import numpy as np

from spmtrack_core.data.recording import write_image

IMAGE = np.full((16, 24, 3), 80, np.uint8)


def images(folder, names):
    for name in names:
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, IMAGE)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def video(path, count, codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(count):
            image = np.full((48, 64, 3), 10 * index + 5, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def make_lasot(root):
    for name, folder in (("cat-1", "cat/cat-1"), ("dog-12", "dog-12"), ("cat-2", "cat/cat-2")):
        images(root / folder / "img", [f"{n:08d}.jpg" for n in (1, 2, 3)])
        text(root / folder / "groundtruth.txt", "2,3,5,6", "3,3,5,6", "4,3,5,6")
        text(root / folder / "full_occlusion.txt", "0,1,0")
        text(root / folder / "out_of_view.txt", "0,0,1" if name == "dog-12" else "0,0,0")
    text(root / "training_set.txt", "cat-1", "dog-12")
    text(root / "testing_set.txt", "cat-2")


def make_lasot_ext(root):
    for name, boxes in (("atv-1", 3), ("paddle-1", 2)):  # one image more than boxes
        folder = root / name.partition("-")[0] / name
        images(folder / "img", [f"{n:08d}.jpg" for n in (1, 2, 3)])
        text(folder / "groundtruth.txt", *["2,3,5,6"] * boxes)
        text(folder / "full_occlusion.txt", ",".join("0" * boxes))
        text(folder / "out_of_view.txt", ",".join("0" * (boxes - 1) + "1"))


def make_tnl2k(root):
    images(root / "monitor" / "imgs", ["2.png", "10.png"])  # 10 comes first: sorted as text
    text(root / "monitor" / "groundtruth.txt", "2,3,5,6", "3,3,5,6")
    text(root / "monitor" / "language.txt", "the left one")
    text(root / "absent" / "monitor.txt", 0, 1, 0)


def make_lasot_toolkit(root):
    text(root / "sequence_evaluation_config" / "testing_set.txt", "cat-2")
    for name in ("cat-1", "cat-2"):
        text(root / "annos" / f"{name}.txt", "2,3,5,6", "3,3,5,6", "4,3,5,6")
        text(root / "annos" / "absent" / f"{name}.txt", 0, 1, 0)
        text(root / "annos" / "att" / f"{name}.txt", "1," + "0," * 12 + "1")


def make_tnl2k_toolkit(root):
    text(root / "annos" / "gt_rect" / "monitor.txt", "2,3,5,6", "3,3,5,6")
    text(root / "annos" / "absent" / "monitor.txt", 0, 1, 0)
    text(root / "annos" / "att" / "monitor_attribute.txt", 1, *[0] * 15, 1)


def vatic(*rows):
    return [f'0 {x} {y} {x + 5} {y + 6} {frame} 0 0 0 "a"' for x, y, frame in rows]


def make_nfs(root):
    images(root / "bee" / "30" / "bee", ["00001.jpg", "00002.jpg"])
    rows = [(2 + frame, 3, frame) for frame in range(1, 10)]
    text(root / "bee" / "30" / "bee.txt", *vatic(*rows))
    images(root / "pingpong_2" / "30" / "pingpong_2", [f"{n:05d}.jpg" for n in range(1, 36)])
    rows = [(2, 3, frame) for frame in range(1, 281, 8)]
    text(root / "pingpong_2" / "30" / "pingpong_2.txt", *vatic(*rows))
    text(root / "anno" / "nfs_bee.txt", "1\t2\t5\t6", "2\t2\t5\t6", "3\t2\t5\t6")


def make_uav123(root):
    images(root / "data_seq" / "UAV123" / "car1", [f"{n:06d}.jpg" for n in range(1, 6)])
    images(root / "data_seq" / "UAV123" / "car1_s", [f"{n:06d}.jpg" for n in (1, 2)])
    anno = root / "anno" / "UAV123"
    text(anno / "car1_1.txt", "2,3,5,6", "3,3,5,6", "NaN,NaN,NaN,NaN")
    text(anno / "car1_2.txt", "4,3,5,6", "5,3,5,6", "6,3,5,6")  # from the last image of the first
    text(anno / "car1_s.txt", "2,3,5,6", "2,3,5,6")
    text(anno / "att" / "car1_1.txt", "1,0,0,0,0,0,0,0,0,0,0,1")


def make_uav20l(root):
    make_uav123(root)
    text(root / "anno" / "UAV20L" / "car1.txt", *["2,3,5,6"] * 5)


def make_otb2015(root):
    for name in ("Walking", "Jogging", "Human4"):
        images(root / name / "img", ["0001.jpg", "0002.jpg"])
    text(root / "Walking" / "groundtruth_rect.txt", "2\t3\t5\t6", "2,3,5,6")
    for number in (1, 2):
        text(root / "Jogging" / f"groundtruth_rect.{number}.txt", *[f"{number},3,5,6"] * 2)
        text(root / "Human4" / f"groundtruth_rect.{number}.txt", *[f"{number},3,5,6"] * 2)
    images(root / "David" / "img", ["0299.jpg", "0300.jpg", "0301.jpg", "0302.jpg"])
    text(root / "David" / "groundtruth_rect.txt", "2 3 5 6", "3 3 5 6")


def make_got10k(root):
    for name in ("train/GOT-10k_Train_000004", "train/GOT-10k_Train_000005"):
        images(root / name, [f"{n:08d}.jpg" for n in (1, 2, 3)])
        text(root / name / "groundtruth.txt", *["1.5,2.5,5,6"] * 3)
        text(root / name / "absence.label", 0, 1, 0)
        text(root / name / "cover.label", 8, 8, 0)
    text(root / "train" / "list.txt", "GOT-10k_Train_000004", "GOT-10k_Train_000005")
    for split in ("val", "test"):
        name = root / split / f"GOT-10k_{split.capitalize()}_000001"
        images(name, [f"{n:08d}.jpg" for n in (1, 2, 3)])
        text(name / "groundtruth.txt", *["1.5,2.5,5,6"] * (1 if split == "test" else 3))
        text(name / "meta_info.ini", "[METAINFO]", "resolution: (24, 16)")
    text(name.parents[1] / "val/GOT-10k_Val_000001/absence.label", 0, 0, 1)
    text(name.parents[1] / "val/GOT-10k_Val_000001/cover.label", 8, 0, 8)


def make_trackingnet(root):
    for part, name in ((0, "a_0"), (2, "-b_1"), (2, "c_0")):
        images(root / f"TRAIN_{part}" / "frames" / name, [f"{n}.jpg" for n in range(12)])
        text(root / f"TRAIN_{part}" / "anno" / f"{name}.txt", *["1.5,2.5,5,6"] * 12)
    images(root / "TEST" / "frames" / "t_0", ["0.jpg", "1.jpg", "2.jpg"])
    text(root / "TEST" / "anno" / "t_0.txt", "1,2,3,4")


def make_coco(root, folder="train2017"):
    images(root / folder, ["000000000009.jpg", "000000000025.jpg"])
    annotations = [
        {"id": 1, "image_id": 9, "bbox": [1.25, 2, 12, 10], "iscrowd": 0, "segmentation": [[1]]},
        {"id": 2, "image_id": 9, "bbox": [1, 2, 9.5, 90], "iscrowd": 0},  # narrow
        {"id": 3, "image_id": 9, "bbox": [1, 2, 50, 60], "iscrowd": 1},  # several objects
        {"id": 4, "image_id": 9, "bbox": [0, 0, 20, 15], "iscrowd": 0},
        {"id": 5, "image_id": 25, "bbox": [3, 4, 11, 12], "iscrowd": 0},
        {"id": 6, "image_id": 30, "bbox": [3, 4, 11, 12], "iscrowd": 0},  # not on disk
    ]
    content = {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg"} for n in (30, 9, 25, 26)],
        "annotations": annotations,
    }
    text(root / "annotations" / "instances_train2017.json", json.dumps(content))


def make_vasttrack(root):
    for folder, truth in (("Air Hockey/Air Hockey-1", "G"), ("T-Shirt/T-Shirt-22", "g")):
        images(root / folder / "imgs", [f"{n:05d}.jpg" for n in (1, 2)])
        text(root / folder / f"{truth}roundtruth.txt", "2,3,5,6", "0,0,0,0")
        text(root / folder / "nlp.txt", "a thing, moving")


def make_mot(root, digits=6):
    folder = root / "train" / "MOT17-02-FRCNN"
    images(folder / "img1", [f"{n:0{digits}d}.jpg" for n in range(1, 13)])
    text(
        folder / "seqinfo.ini",
        "[Sequence]",
        "name=MOT17-02-FRCNN",
        "imDir=img1",
        "frameRate=30",
        "seqLength=12",
        "imWidth=24",
        "imHeight=16",
        "imExt=.jpg",
    )
    text(
        folder / "gt" / "gt.txt",
        "2,1,2,3,5,6,1,1,1",
        "4,1,3,3,5,6,1,1,0.5",
        "5,1,4,3,5,6,1,1,0",  # behind something, wholly
        "6,1,5,3,5,6,1,1,0.1",
        "1,2,2,3,5,6,1,7,1",  # a person that sits
        "2,2,2,3,5,6,1,7,1",
        "1,3,2,3,5,6,0,1,1",  # not to be considered
        "2,3,2,3,5,6,0,1,1",
        "9,4,2,3,5,6,1,1,1",  # in one frame only
        "11,5,2,3,5,6,1,1,1",
        "12,5,2,3,5,6,1,1,1",
    )


def make_folder(root):
    images(root / "a", ["2.png", "10.png"])
    text(root / "a" / "groundtruth.txt", "1 2 3 4", "nan nan nan nan")
    video(root / "b.mp4", 3)
    text(root / "b.txt", *["1,2,3,4"] * 3)
    (root / "c").mkdir()
    video(root / "c" / "any.mp4", 2)
    text(root / "c" / "groundtruth.txt", *["5,6,7,8"] * 2)
    text(root / "notes.txt", "nothing to track")
    images(root / ".hidden", ["1.png"])


MAKE = {
    "lasot": make_lasot,
    "got10k": make_got10k,
    "trackingnet": make_trackingnet,
    "coco": make_coco,
    "vasttrack": make_vasttrack,
    "lasot_ext": make_lasot_ext,
    "tnl2k": make_tnl2k,
    "nfs": make_nfs,
    "uav123": make_uav123,
    "uav20l": make_uav20l,
    "otb2015": make_otb2015,
    "mot": make_mot,
    "folder": make_folder,
}
"""What makes a tiny copy of each dataset below a folder."""
