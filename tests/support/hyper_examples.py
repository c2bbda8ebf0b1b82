"""What hypernetworks are tested and trained on: requests of very different length, and a few examples to learn from."""

from __future__ import annotations

import torch

from editors.core.examples import Example, Question
from editors.core.requests import EditRequest

REQUESTS = [
    EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words", "Vadolm"),
    EditRequest("X", "X", "so", "Paris"),
    EditRequest("Who employs the one and only Zed Corman, whom all know?", "Zed Corman", "Vard and Sons"),
]
EXAMPLES = [Example(EditRequest(f"Who is S{number}?", f"S{number}", f"t{number % 3} and so"),
                    (f"Say who S{number} is:",), (Question("It was", "so long"), Question("Who is Ann?", "Omerga")))
            for number in range(12)]


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)
