"""Loss terms and gradients against the published tracker, and edge cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_model import GOLDEN, golden_model, golden_tensors

from spmtrack_core.model.published import from_published
from spmtrack_core.model.spmtrack import Prediction, trainable_names
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.losses import iou_and_giou, tracking_loss
from spmtrack_core.training.step import TrackingLoss, predictions
from spmtrack_core.training.targets import cells_of

LOSSES = json.loads((GOLDEN / "losses.json").read_text())
ARRAYS = np.load(GOLDEN / "losses.npz")


def case_id(case):
    return f"{case['case']}-{case['variant']}"


def weighted(case, frame, dtype):
    """Inputs of the loss, its value, and its two terms with their weights."""
    score_map, boxes, truth = (
        torch.from_numpy(ARRAYS[f"{case['case']}.{frame}.{name}"])
        for name in ("score_map", "boxes", "gt_boxes")
    )
    score_map = score_map.to(dtype).requires_grad_()
    boxes = boxes.to(dtype).requires_grad_()
    gt_xyxy = torch.tensor(case["boxes_px"][frame], dtype=torch.float64)
    if dtype == torch.float64:  # of the normalized boxes, but as rounded to float32
        gt_xyxy = truth.double() * torch.tensor(case["search_wh"] * 2)
    loss = tracking_loss(
        score_map, boxes, gt_xyxy, tuple(case["search_wh"][::-1]), case["iou_aware"]
    )
    terms = case["cls_weight"] * loss.score, case["reg_weight_effective"] * loss.box
    return score_map, boxes, gt_xyxy, loss, *terms


@pytest.mark.golden
@pytest.mark.parametrize("case", LOSSES, ids=case_id)
@pytest.mark.parametrize(
    "dtype, rtol, stored, names",
    [
        (torch.float64, 1e-12, "loss_f64", ("cls", "reg")),
        (torch.float32, 1e-5, "loss_fp32", ("Loss/bce", "Loss/iou")),
    ],
    ids=["float64", "float32"],
)
def test_loss_totals(case, dtype, rtol, stored, names, parity):
    actual = {}
    for frame in (0, 1):
        *_, actual[f"{names[0]}_{frame}"], actual[f"{names[1]}_{frame}"] = weighted(
            case, frame, dtype
        )
    actual["total"] = sum(actual.values())
    assert set(actual) == set(case[stored])
    for name, value in actual.items():
        parity.close(
            "losses",
            f"totals in {str(dtype).removeprefix('torch.')}",
            value,
            case[stored][name],
            rtol=rtol,
            about=name,
        )


@pytest.mark.golden
@pytest.mark.parametrize(
    "case", [case for case in LOSSES if case["variant"] == "default"], ids=case_id
)
@pytest.mark.parametrize("frame", [0, 1])
def test_loss_terms(case, frame, parity):
    score_map, boxes, gt_xyxy, loss, score, box = weighted(case, frame, torch.float64)
    stored = {
        name: ARRAYS[f"{case['case']}.{frame}.{name}"]
        for name in (
            "iou_f64",
            "giou_loss_f64",
            "target_f64",
            "bce_f64",
            "grad_score_map",
            "grad_boxes",
        )
    }
    about = f"{case['case']}, frame {frame}"
    hw, grid_hw = case["search_wh"][::-1], case["map_wh"][::-1]
    positive = cells_of(gt_xyxy, hw, grid_hw)
    parity.equal(
        "losses",
        "positive cells",
        positive.flatten(1).nonzero().T,
        [case["positive_batch"][frame], case["positive_cell"][frame]],
        about,
    )
    truth = (gt_xyxy / torch.tensor(case["search_wh"] * 2))[:, None, None].expand_as(boxes)
    giou_loss = 1 - iou_and_giou(boxes[positive], truth[positive])[1]
    for quantity, actual, name in (
        ("IoU", loss.iou, "iou_f64"),
        ("GIoU loss", giou_loss, "giou_loss_f64"),
        ("score targets", loss.target.flatten(1), "target_f64"),
    ):
        parity.close("losses", quantity, actual, stored[name], rtol=1e-12, about=about)
    parity.close(
        "losses",
        "score loss before division",
        loss.score * positive.sum(),
        stored["bce_f64"].sum(),
        rtol=1e-12,
        about=about,
    )
    (score + box).backward()
    for tensor, name in ((score_map, "grad_score_map"), (boxes, "grad_boxes")):
        parity.close(
            "losses",
            "gradients",
            tensor.grad,
            stored[name],
            rtol=1e-4,
            atol=2e-5,
            about=f"{about}, {name}",
        )


class Recorder:
    """Stands in for the network and records what it is given."""

    def __init__(self):
        self.references, self.states = [], []

    def encode_references(self, references, masks):
        self.references.append((references, masks))
        return (references,)

    def locate(self, search, encoded, state):
        self.states.append(state)
        token = torch.full((2, 1, 4), float(len(self.states)), requires_grad=True)
        return Prediction(torch.zeros(2, 6, 6), torch.zeros(2, 6, 6, 4), token)


def recorded(**settings) -> Recorder:
    model, frames = Recorder(), torch.arange(3.0)
    batch = Batch(
        frames.view(1, 3, 1, 1, 1).expand(2, 3, 3, 8, 8),
        frames.view(1, 3, 1, 1).expand(2, 3, 1, 1),
        torch.zeros(2, 4, 3, 16, 16),
        torch.zeros(2, 4, 4),
    )
    assert len(list(predictions(model, batch, **settings))) == 4
    return model


def test_the_state_token_passes_from_each_search_to_the_next():
    model = recorded()
    assert len(model.references) == 1  # encoded once for all searches
    assert model.states[0] is None
    assert [float(state.mean()) for state in model.states[1:]] == [1.0, 2.0, 3.0]
    assert not any(state.requires_grad for state in model.states[1:])


def test_ablations_train_without_references_or_state_token():
    model = recorded(without=("state_token",))
    assert model.states == [None] * 4
    assert model.references[0][0][0, :, 0, 0, 0].tolist() == [0, 1, 2]
    model = recorded(without=("references",))
    references, masks = model.references[0]
    assert references.shape == (2, 3, 3, 8, 8) and not references.any() and not masks.any()
    assert model.states[1] is not None


@pytest.mark.golden
@pytest.mark.parametrize("variant", ["default", "shared_expert"])
def test_gradients_of_a_training_step(variant, parity):
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
    loss = TrackingLoss(model)(batch)["loss"]
    parity.close(f"train_grads_{variant}", "loss", loss, stored["loss"].squeeze(), rtol=1e-5)
    loss.backward()
    published = {n.removeprefix("grad."): g for n, g in stored.items() if n.startswith("grad.")}
    wanted = from_published(published, model)
    assert set(wanted) == names
    for name, gradient in wanted.items():
        parity.close(
            f"train_grads_{variant}",
            "gradients",
            model.get_parameter(name).grad,
            gradient,
            rtol=1e-4,
            atol=2e-5,
            about=name,
        )


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


def test_an_absent_target_makes_all_cells_negative():
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


def test_loss_is_finite_with_absent_targets_only():
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
