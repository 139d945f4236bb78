"""Adapters while they are trained: their factors as parameters, and what they add to a Linear's output."""

from .base import Trainable
from .loha import TrainableLoHa
from .lokr import TrainableLoKr
from .lora import TrainableLoRA

__all__ = ["TRAINABLES", "Trainable", "TrainableLoHa", "TrainableLoKr", "TrainableLoRA"]

TRAINABLES: dict[str, type[Trainable]] = {"lora": TrainableLoRA, "loha": TrainableLoHa, "lokr": TrainableLoKr}
"""Every algorithm that is trained, by its id."""
