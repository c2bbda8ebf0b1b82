"""Questions asked of models, edited and not, and what the answers are worth."""
