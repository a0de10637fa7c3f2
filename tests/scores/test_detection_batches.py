"""What detection scores keep of a batch."""

from __future__ import annotations

import torch

from training.scores.detection import DetectionScores


def test_nothing_of_a_batch_is_held_after_it_was_added() -> None:
    scores = DetectionScores(["car"])
    truth = [torch.tensor([[0.0, 0, 10, 10]])], [torch.zeros(1, dtype=torch.int64)], [torch.zeros(1, dtype=torch.bool)]
    area = [torch.full((1,), 100.0)]
    scores.update(torch.tensor([[[0.0, 0, 10, 10, 0.9, 0]]]), *truth, area)
    for tensor in (*truth[0], *truth[1], *area):
        tensor.fill_(7)
    assert scores.compute()["map"] == 1 and scores.record()["counts"]["car"]["boxes"] == 1
