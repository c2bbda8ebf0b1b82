"""A frozen model as editors see it: modules, tokens, forward passes, what flows through them."""
