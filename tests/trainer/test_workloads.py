"""What a workload in memory does for the one who writes it."""

import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn


class Counted(InMemoryWorkload):
    loss = "mse"

    def __init__(self) -> None:
        super().__init__(WorkloadOptions(name="counted", batch_size=2))
        self.asked: list[str] = []

    def data(self, split: str) -> dict[str, Tensor]:
        self.asked.append(split)
        return {"inputs": torch.ones(4, 1), "targets": torch.ones(4, 1)}

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)


def test_data_are_asked_for_once_a_split_however_often_one_evaluates() -> None:
    workload = Counted()
    for _ in range(3):
        list(workload.split("train"))
        list(workload.split("validation"))
        workload.stream("probe", 0)
    assert workload.asked == ["train", "validation"]


def test_workloads_share_no_data() -> None:
    first, second = Counted(), Counted()
    list(first.split("train"))
    list(second.split("train"))
    assert second.asked == ["train"]
