"""Loss terms and gradients against the published tracker, and their edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_model import GOLDEN, golden_model, golden_tensors

from spmtrack_core.model.spmtrack import trainable_names
from spmtrack_core.model.weights import from_published
from spmtrack_core.training.losses import iou_and_giou, tracking_loss
from spmtrack_core.training.synthetic import Batch
from spmtrack_core.training.trainer import losses

LOSSES = json.loads((GOLDEN / "losses.json").read_text())


@pytest.mark.golden
@pytest.mark.parametrize("case", LOSSES, ids=lambda case: f"{case['case']}-{case['variant']}")
def test_loss_terms(case):
    arrays = np.load(GOLDEN / "losses.npz")
    total = torch.zeros((), dtype=torch.float64)
    for frame in (0, 1):
        given = {
            name: torch.from_numpy(arrays[f"{case['case']}.{frame}.{name}"])
            for name in ("score_map", "boxes", "gt_boxes")
        }
        score_map = given["score_map"].double().requires_grad_()
        boxes = given["boxes"].double().requires_grad_()
        loss = tracking_loss(
            score_map,
            boxes,
            # the published loss saw the normalised boxes as rounded to float32
            given["gt_boxes"].double() * torch.tensor(case["search_wh"] * 2),
            tuple(case["search_wh"][::-1]),
            iou_aware=case["iou_aware"],
        )
        score = case["cls_weight"] * loss.score
        box = case["reg_weight_effective"] * loss.box
        wanted = case["loss_f64"]
        assert score.item() == pytest.approx(wanted[f"cls_{frame}"], rel=1e-12)
        assert box.item() == pytest.approx(wanted[f"reg_{frame}"], rel=1e-12)
        total = total + score + box
        if case["variant"] != "default":
            continue
        prefix = f"{case['case']}.{frame}."
        np.testing.assert_allclose(loss.iou, arrays[prefix + "iou_f64"], rtol=1e-12)
        target = arrays[prefix + "target_f64"].reshape(loss.target.shape)
        np.testing.assert_allclose(loss.target, target, rtol=1e-12)
        (score + box).backward()
        for tensor, name in ((score_map, "grad_score_map"), (boxes, "grad_boxes")):
            wanted_grad = arrays[prefix + name]
            np.testing.assert_allclose(tensor.grad, wanted_grad, rtol=1e-4, atol=2e-5)
    assert total.item() == pytest.approx(case["loss_f64"]["total"], rel=1e-12)


@pytest.mark.golden
@pytest.mark.parametrize("variant", ["default", "shared_expert"])
def test_gradients_of_a_training_step(variant):
    model = golden_model(f"model_{variant}_params").train()
    names = trainable_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    inputs = golden_tensors(f"model_{variant}_io")
    stored = golden_tensors(f"train_grads_{variant}")
    batch = Batch(
        references=torch.stack([inputs[f"in.z_{i}"] for i in range(3)], 1),
        masks=torch.stack([inputs[f"in.z_{i}_feat_mask"] for i in range(3)], 1).float(),
        searches=torch.stack([inputs["in.x_0"], inputs["in.x_1"]], 1),
        boxes_xyxy=torch.stack([stored["gt_boxes_px_0"], stored["gt_boxes_px_1"]], 1),
    )
    loss = losses(model, batch)["loss"]
    assert loss.item() == pytest.approx(stored["loss"].item(), rel=1e-5)
    loss.backward()
    published = {n.removeprefix("grad."): g for n, g in stored.items() if n.startswith("grad.")}
    wanted = from_published(published)
    assert set(wanted) == names
    for name, gradient in wanted.items():
        actual = model.get_parameter(name).grad
        torch.testing.assert_close(actual, gradient, rtol=1e-4, atol=2e-5, msg=name)


IOU_TABLE = [
    # a, b, IoU, GIoU, why
    ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0, "equal"),
    ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3, "overlap in a full hull"),
    ([0, 0, 1, 1], [3, 0, 4, 1], 0.0, -0.5, "apart: only GIoU tells how far"),
    ([0, 0, 1, 1], [1, 1, 2, 2], 0.0, -0.5, "touching corners"),
    ([1, 1, 1, 1], [1, 1, 1, 1], 0.0, 0.0, "no area: finite, not NaN"),
]


@pytest.mark.parametrize("a, b, iou, giou, why", IOU_TABLE, ids=[row[-1] for row in IOU_TABLE])
def test_iou_and_giou(a, b, iou, giou, why):
    got = iou_and_giou(torch.tensor([a]).float(), torch.tensor([b]).float())
    assert [value.item() for value in got] == pytest.approx([iou, giou], abs=1e-6), why


ABSENT = torch.full((1, 4), float("nan"))


def test_absent_targets_ask_for_no_score_anywhere():
    torch.manual_seed(0)
    score_map, boxes = torch.randn(3, 4, 4).requires_grad_(), torch.rand(3, 4, 4, 4)
    boxes = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1).requires_grad_()
    there = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 4.0, 60.0, 30.0]])
    mixed = tracking_loss(score_map, boxes, torch.cat([there, ABSENT]), (64, 64))
    alone = tracking_loss(score_map[:2], boxes[:2], there, (64, 64))
    assert mixed.box == alone.box and torch.equal(mixed.iou, alone.iou)
    assert torch.equal(mixed.target[:2], alone.target) and not mixed.target[2].any()
    extra = torch.nn.functional.softplus(score_map[2]).sum() / len(alone.iou)
    assert (mixed.score - alone.score).item() == pytest.approx(extra.item(), rel=1e-5)
    (mixed.score + mixed.box).backward()
    assert not boxes.grad[2].any() and (score_map.grad[2] > 0).all()


def test_nothing_but_absent_targets():
    score_map, boxes = torch.zeros(1, 4, 4).requires_grad_(), torch.zeros(1, 4, 4, 4)
    loss = tracking_loss(score_map, boxes.requires_grad_(), ABSENT, (64, 64))
    (loss.score + loss.box).backward()
    assert loss.score.item() == pytest.approx(16 * np.log(2)) and loss.box == 0
    assert score_map.grad.isfinite().all() and not boxes.grad.any()


def test_a_box_without_cells_is_named():
    with pytest.raises(ValueError, match=r"\[14\.0, 14\.0, 14\.0, 14\.0\] covers no cell"):
        tracking_loss(
            torch.zeros(1, 7, 7),
            torch.zeros(1, 7, 7, 4),
            torch.tensor([[14.0, 14.0, 14.0, 14.0]]),
            (98, 98),
        )
