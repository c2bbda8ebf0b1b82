"""From a campaign to its tasks."""
