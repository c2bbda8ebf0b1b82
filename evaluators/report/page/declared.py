"""Table 1: what each editor needs, does and changes, as its class declares it, beside what the paper says of it.

Costs and layers are those of its settings for GPT-J-6B, whose configuration is transformers' own default: no weights
are read. This loads torch, which no other part of a report does.
"""

from __future__ import annotations

from collections.abc import Iterator

from editors import EDITORS, get_editor, resolve_config
from editors.core.errors import InputError
from editors.core.printable import printable
from evaluators.report.page.blocks import NOTHING, Cell, Grid, name
from evaluators.report.page.charts import swatch
from evaluators.report.paper import TABLE_1
from evaluators.report.samples import name_key

HEADS = ("editor", "what an edit does", "learns first", "second moments", "several as one", "models", "changes",
         "layers of GPT-J", "TFLOP an edit", "paper: training, online, batch", "paper: area, parameters",
         "paper: efficient")


def declared() -> Grid:
    """One row for each editor that there is."""
    return Grid("Table 1: what editors need and change", HEADS, list(_rows()), note=(
        "From the editors' own code, on GPT-J-6B with its preset; in columns of the paper, what its table 1 prints. "
        "Operations are what plans are forecast by; those of training are below those of an edit. KN finds its layers "
        "anew for each edit."))


def _rows() -> Iterator[list[Cell]]:
    from transformers import GPTJConfig

    from editors.core.models.architectures import Shape

    model = GPTJConfig()
    shape = Shape.of(model)
    for each in sorted(EDITORS, key=name_key):
        editor = get_editor(each)
        first = (editor.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
        yes = [_yes(editor.trained), NOTHING, _yes(editor.joint)]
        layers, cost = NOTHING, NOTHING
        try:
            config = resolve_config(each, model)
        except InputError:  # there is no preset for this model
            pass
        else:
            yes[1] = _yes(bool(editor.statistics_layers(config)))
            layers = Cell(_ranges(config.edited_layers) or "-")
            training = editor.training_cost(config, shape)
            cost = Cell(f"{editor.cost(config, shape) / 1e12:.3g}",
                        [f"training {training / 1e12:,.0f}"] if training else [])
        models = Cell("decoder-only" if editor.decoder_only else "all")
        change = Cell("weights" if editor.in_weights else "an added part")
        yield [Cell(each, [f"version {editor.version}"], mark=swatch(each)), Cell(printable(first, 120)), *yes,
               models, change, layers, cost, *_papers(each)]


def _papers(editor: str) -> list[Cell]:
    if editor not in TABLE_1:
        return [NOTHING] * 3
    printed = TABLE_1[editor]
    words = (printed.training, printed.online, printed.batch)
    return [name(", ".join("yes" if word else "no" for word in words)),
            Cell(printed.area, [printed.parameters]), _yes(printed.efficient)]


def _yes(value: bool) -> Cell:
    return Cell("yes" if value else "no")


def _ranges(layers: tuple[int, ...]) -> str:
    """Layers as people write them: those that follow one another as a range."""
    if len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ", ".join(map(str, layers))
