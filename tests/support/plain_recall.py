"""What a model knows, by a plain loop: one prompt at a time, one token after another."""

from __future__ import annotations

import torch


@torch.no_grad()
def greedy_and_rank(module, tokenizer, prompt, answer):
    """Whether the tokens that the model writes greedily behind the prompt are those of " answer"; and at which place of
    all tokens, the most probable first, the first of these stands behind the prompt, counted from 0."""
    wanted = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    read = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    decoder = module.config.is_encoder_decoder
    written, rank = [], None
    for _ in wanted:
        if decoder:
            logits = module(input_ids=torch.tensor([[*read, module.config.eos_token_id]]),
                            decoder_input_ids=torch.tensor([[module.config.decoder_start_token_id, *written]])).logits
        else:
            logits = module(input_ids=torch.tensor([[*read, *written]])).logits
        best = torch.topk(logits[0, -1], logits.shape[-1]).indices.tolist()
        rank = best.index(wanted[0]) if rank is None else rank
        written.append(best[0])
    return written == wanted, rank
