"""The metrics of what edits cost, each value that of one repeat, in the order of tables."""

from __future__ import annotations

from evaluators.scoring.metrics import Metric

SECONDS = {"": "one at a time", ".chunked": "all at once, each with a patch of its own",
           ".cold": "the first edit of the process, alone",
           ".undetermined": "one at a time, by kernels whose sums may come in any order"}
MEMORY = {"device": "all that is used of the device", "allocated": "tensors on the device",
          "reserved": "what the allocator holds of the device", "rss": "the process's resident set",
          "excess": "tensors on the device, less those that were there before"}

METRICS = (
    *(Metric(f"cost.seconds{how}", f"the edits, {meaning}", "seconds", "lower") for how, meaning in SECONDS.items()),
    *(Metric(f"cost.memory.{what}", f"the edits one at a time, at most: {meaning}", "bytes", "lower")
      for what, meaning in MEMORY.items()),
    Metric("cost.load.seconds", "reading the model", "seconds", "lower"),
    Metric("cost.making.seconds", "making the editor: factoring second moments, reading what was learned", "seconds",
           "lower"),
    Metric("cost.statistics.seconds", "taking second moments, summed over shards", "seconds", "lower"),
    Metric("cost.training.seconds", "training the method, since it was last cut short", "seconds", "lower"),
    Metric("cost.training.memory", "training the method, at most: all of the device, or on a CPU of the process",
           "bytes", "lower"),
    Metric("cost.flops", "the edits: operations, reckoned from shapes and tokens", "operations", "lower"),
    Metric("cost.joules", "the edits: the device's energy, less what it takes idle", "joules", "lower"),
)
