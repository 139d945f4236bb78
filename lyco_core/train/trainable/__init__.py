"""Adapters while they are trained: their factors as parameters, and what they add to a Linear's output."""

from .base import Dropouts, Trainable
from .loha import TrainableLoHa
from .lokr import TrainableLoKr
from .lora import TrainableLoRA

__all__ = ["TRAINABLES", "Dropouts", "Trainable", "TrainableLoHa", "TrainableLoKr", "TrainableLoRA"]

TRAINABLES = {"lora": TrainableLoRA, "loha": TrainableLoHa, "lokr": TrainableLoKr}
"""`network_args`' algorithm -> its class."""
