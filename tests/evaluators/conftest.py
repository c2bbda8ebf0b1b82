"""Small cases of every shape, and patches that change the tiny model's answers."""

import pytest
import torch

from editors.core.patches.patch import Dense, LowRank, Patch
from evaluators.cases import Case, Chain, Probe


@pytest.fixture(scope="session")
def cases():
    """Three cases: all kinds of probes with targets of one to many tokens, only a rewrite, and a repeated subject."""
    return [
        Case(id="full", subject="Art Budrer", prompt="The birthplace of Art Budrer is", target_new="Vadolm",
             target_true="a city with a much longer name", relation="birth",
             paraphrases=("Where was Art Budrer born?", "Art Budrer was born in"),
             neighbourhood=(Probe(prompt="Bo was born in", target="Vadolm", subject="Bo", relation="birth"),
                            Probe(prompt="The birthplace of Cy is", target="Rome, Italy", subject="Cy",
                                  relation="birth")),
             attributes=(Probe(prompt="Art Budrer plays", target="golf", subject="Art Budrer", relation="sport"),),
             unrelated=(Probe(prompt="The weather is mild", target="today"),),
             portability=(Chain(prompt="In which country was Art Budrer born?", target="Fuzoia",
                                link=Probe(prompt="Vadolm lies in the country of", target="Fuzoia")),
                          Chain(prompt="Which river flows where Art Budrer was born?", target="Tregus"))),
        Case(id="bare", subject="X", prompt="X", target_new="an answer of several words"),
        Case(id="again", subject="Art Budrer", prompt="Art Budrer plays", target_new="chess", target_true="golf",
             relation="sport", paraphrases=("The sport of Art Budrer is",)),
    ]


@pytest.fixture(scope="session")
def patches(tiny_gptj):
    """An empty patch, low-rank ones in several layers, and a dense one."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    def low(layer):
        return LowRank(tiny_gptj.down_path(layer), random(32, 2), random(64, 2))

    return [Patch(), Patch((low(1),)), Patch((low(0), low(3))),
            Patch((Dense(tiny_gptj.down_path(2), random(32, 64), random(32)),))]
