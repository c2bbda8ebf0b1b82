"""Side models whose scope classifier knows where each of some prompts lies."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import torch
from torch import nn

from editors.core.patches.route import Classifier, SideModel

RADIUS = math.sqrt(math.log(2))
PLACES = {"Where is A?": (0.0, 0.0), "A is in": (0.3, 0.0), "Where does B live, and since when?": (5.0, 0.0),
          "B lives in": (5.0, 0.4), "Is C?": (0.0, 9.0), "Between A and C": (0.0, RADIUS - 1e-5),
          "Beyond": (0.0, RADIUS + 1e-5), "Close to A": (0.1, 0.0)}
A, B = ("Where is A?", "so and so"), ("Where does B live, and since when?", "Omerga")
HIT_A, HIT_B, MISS = ("A is in", "a long answer"), ("B lives in", "Omerga"), ("Is C?", "not so")


class Map(nn.Module):
    """An encoder that knows where each prompt lies; ids are numbers of prompts."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.tensor(list(PLACES.values())))
        self.seen = []

    def forward(self, input_ids, attention_mask):
        self.seen += input_ids[:, 0].tolist()
        return SimpleNamespace(last_hidden_state=self.places[input_ids])


def other(model, seed=1, **changes):
    """A model of the same kind with other weights."""
    config = copy.deepcopy(model.module.config)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    module = type(model.module)(config)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.2)
    return type(model)(module, model.tokenizer, "other")


def map_side(model, side_model):
    known = {model.encode(prompt).prompt: number for number, prompt in enumerate(PLACES)}
    return SideModel(side_model, Classifier(Map(), lambda prompt: [known[prompt]]))
