"""An edit as a value: a `Patch` is a tuple of small terms, each added to the output of one named, frozen module, or a
`Route` to another model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from editors.core.errors import InputError, first_problem
from editors.core.files import all_finite, damaged, read_tensors, write_tensors
from editors.core.headers import PatchHeader
from editors.core.models.activations import activation_function
from editors.core.patches import at_once
from editors.core.patches.origin import Origin, joined
from editors.core.patches.runs import Runs

# Up to this rank, or so many neurons, copying each row's factors for one batched product beats one product for each run
# of rows, by the type of device: on a CPU never.
GATHER_RANK = {"cpu": 0, "cuda": 16}


@dataclass(frozen=True, eq=False)
class Term:
    """What a patch adds to the output of `module`. A subclass names its tensors as fields, says in `shapes` what their
    sides are ("in" and "out" are the module's), and implements `delta`.

    One whose `module` is empty touches none.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # for what is read from files

    kind: ClassVar[str]
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    aside: ClassVar[tuple[str, ...]] = ()  # tensors that nothing is computed with
    module: str

    def delta(self, x: Tensor) -> Tensor:
        """The addition [rows, ..., out] for module inputs x [rows, ..., in], all rows carrying this term."""
        raise TypeError(f"{type(self).__name__} has no delta")

    @property
    def form(self) -> Hashable:
        """Terms of one class and equal forms can be computed in one product, each for its own rows."""
        return self.dtype

    @classmethod
    def delta_by_row(cls, terms: Sequence[Self], runs: Runs, x: Tensor) -> Tensor:
        """The addition when the rows of x carry the terms, all of one form, as `runs` say. Loops over the runs; terms
        that are `small` are computed in one product."""
        if all(term.small(x.device) for term in terms):
            return runs.gathered(lambda rows, index: cls.delta_at_once(terms, index, x[rows]), x.device)
        return runs.join(lambda run: terms[run.term].delta(x[run.start: run.stop]))

    def small(self, device: torch.device) -> bool:
        """Whether a row's copy of the term costs so little there that `delta_at_once` pays."""
        return False

    @classmethod
    def delta_at_once(cls, terms: Sequence[Self], index: Tensor, x: Tensor) -> Tensor:
        """The addition when row i of x carries `terms[index[i]]`."""
        raise TypeError(f"{cls.__name__} has no delta_at_once")

    @property
    def merge_key(self) -> Hashable | None:
        """Terms with equal keys can be `merge`d into one; None where a term must stay as it is."""
        return None

    @classmethod
    def merge(cls, terms: Sequence[Self]) -> Self:
        """One term that adds what all of these, of one `merge_key`, add together."""
        raise TypeError(f"terms of kind '{cls.kind}' cannot be merged")

    def tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def settings(self) -> dict[str, Any]:
        """The fields that are not tensors, as JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, Tensor) and value is not None}

    def misfit(self, sides: Mapping[str, int]) -> str | None:
        """What keeps the tensors from going together, on a module with these `sides`; None where they do, exactly:
        PyTorch would take one number for many."""
        known, tensors = dict(sides), self.tensors()
        for name, tensor in tensors.items():
            names = self.shapes[name]
            if tensor.ndim == len(names):
                known = {**dict(zip(names, tensor.shape, strict=True)), **known}
            wanted = [known.get(side, side) for side in names]
            if list(tensor.shape) != wanted:
                return f"has {name} {list(tensor.shape)}, which should be [{', '.join(map(str, wanted))}]"
            if not tensor.is_floating_point() or tensor.itemsize == 1:
                return f"has {name} of {tensor.dtype}, which should be of floating point numbers of 16 bits or more"
            if tensor.dtype != self.dtype and name not in self.aside:
                return f"has {name} of {tensor.dtype} beside others of {self.dtype}"
        return None

    @property
    def dtype(self) -> torch.dtype | None:
        """That of its first tensor, which all but those aside have; None without any."""
        return next((tensor.dtype for tensor in self.tensors().values()), None)

    def to(self, device: torch.device | str) -> Self:
        return self._with({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def detach(self) -> Self:
        """The term with the same values, which no gradient reaches."""
        return self._with({name: tensor.detach() for name, tensor in self.tensors().items()})

    def _with(self, tensors: Mapping[str, Any]) -> Self:
        return type(self)(**self.settings(), **tensors)


@dataclass(frozen=True, eq=False)
class LowRank(Term):
    """`y += (x b) aᵀ`, with a [out, rank] and b [in, rank]; computed in the factors' dtype."""

    kind: ClassVar[str] = "low-rank"
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {"a": ("out", "rank"), "b": ("in", "rank")}
    a: Tensor
    b: Tensor

    def delta(self, x: Tensor) -> Tensor:
        # (x b) aᵀ; never a bᵀ, which is as large as the module's weight
        return (x.to(self.b.dtype) @ self.b) @ self.a.T

    @property
    def merge_key(self) -> Hashable:
        return self.module, self.a.dtype, self.b.dtype, self.a.device

    def slim(self) -> LowRank | Dense:
        """The term, or its product a bᵀ where that is smaller than the factors."""
        small = self.a.numel() + self.b.numel() <= len(self.a) * len(self.b)
        return self if small else Dense(self.module, self.a @ self.b.T)

    @classmethod
    def merge(cls, terms: Sequence[Self]) -> Self:
        # a₁ b₁ᵀ + a₂ b₂ᵀ = [a₁ a₂] [b₁ b₂]ᵀ
        return cls(terms[0].module, torch.cat([term.a for term in terms], 1), torch.cat([term.b for term in terms], 1))

    @property
    def form(self) -> Hashable:
        return self.dtype, self.small(self.b.device)

    def small(self, device: torch.device) -> bool:
        return self.b.shape[1] <= GATHER_RANK.get(device.type, 0)

    @classmethod
    def delta_at_once(cls, terms: Sequence[Self], index: Tensor, x: Tensor) -> Tensor:
        return at_once.low_rank([term.a for term in terms], [term.b for term in terms], index, x)


@dataclass(frozen=True, eq=False)
class Dense(Term):
    """`y += x weightᵀ + bias`, with weight [out, in] and an optional bias [out]."""

    kind: ClassVar[str] = "dense"
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {"weight": ("out", "in"), "bias": ("out",)}
    weight: Tensor
    bias: Tensor | None = None

    def delta(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)

    @property
    def merge_key(self) -> Hashable:
        return self.module, self.weight.dtype, self.weight.device

    @classmethod
    def merge(cls, terms: Sequence[Self]) -> Self:
        biases = [term.bias for term in terms if term.bias is not None]
        return cls(terms[0].module, torch.stack([term.weight for term in terms]).sum(0),
                   torch.stack(biases).sum(0) if biases else None)


@dataclass(frozen=True, eq=False)
class Neurons(Term):
    """`y += (act(x keysᵀ + bias) * (x gateᵀ)) valuesᵀ` on a whole FFN, x its input: n more neurons of its kind.

    keys and gate are [n, in], bias [n], values [out, n]; without `gate` or `bias` those factors are left out.
    `activation` is a name in `transformers.activations.ACT2FN`. `queries` [m, in] add nothing: they are the inputs that
    the neurons were made for, for later edits to see.
    """

    kind: ClassVar[str] = "neurons"
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {"keys": ("neurons", "in"), "values": ("out", "neurons"),
                                                       "bias": ("neurons",), "gate": ("neurons", "in"),
                                                       "queries": ("queries", "in")}
    aside: ClassVar[tuple[str, ...]] = ("queries",)
    keys: Tensor
    values: Tensor
    activation: str
    bias: Tensor | None = None
    gate: Tensor | None = None
    queries: Tensor | None = None

    def delta(self, x: Tensor) -> Tensor:
        x = x.to(self.keys.dtype)
        # (act(x keysᵀ + bias) ⊙ x gateᵀ) valuesᵀ
        active: Tensor = activation_function(self.activation)(torch.nn.functional.linear(x, self.keys, self.bias))
        if self.gate is not None:
            active = active * (x @ self.gate.T)
        return active @ self.values.T

    @property
    def merge_key(self) -> Hashable:
        return (self.module, self.activation, self.bias is None, self.gate is None, self.queries is None,
                self.keys.dtype, self.values.dtype, self.keys.device)

    @classmethod
    def merge(cls, terms: Sequence[Self]) -> Self:
        joined = {name: torch.cat([term.tensors()[name] for term in terms], int(name == "values"))
                  for name in terms[0].tensors()}
        return cls(terms[0].module, activation=terms[0].activation, **joined)

    @property
    def form(self) -> Hashable:
        return self.dtype, self.small(self.keys.device), self.activation, self.gate is None

    def small(self, device: torch.device) -> bool:
        return len(self.keys) <= GATHER_RANK.get(device.type, 0)

    @classmethod
    def delta_at_once(cls, terms: Sequence[Self], index: Tensor, x: Tensor) -> Tensor:
        gates = [term.gate for term in terms if term.gate is not None]
        return at_once.neurons([term.keys for term in terms], [term.bias for term in terms], gates or None,
                               [term.values for term in terms], activation_function(terms[0].activation), index, x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Route(Term):
    """Questions in the scope of a (prompt, target) in `memory` are answered by a second model, not by this one.

    `side` is the digest of the artefact that holds that model; `route` does it. It touches no module.
    """

    kind: ClassVar[str] = "route"
    module: str = ""
    side: str
    memory: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", tuple((prompt, target) for prompt, target in self.memory))

    @property
    def merge_key(self) -> Hashable:
        return self.side

    @classmethod
    def merge(cls, terms: Sequence[Self]) -> Self:
        return cls(side=terms[0].side, memory=tuple(entry for term in terms for entry in term.memory))


TERMS: dict[str, type[Term]] = {term.kind: term for term in (LowRank, Dense, Neurons, Route)}
_ADAPTERS: dict[str, TypeAdapter[Term]] = {kind: TypeAdapter(term) for kind, term in TERMS.items()}


@dataclass(frozen=True, eq=False)
class Patch:
    """An immutable edit. The empty patch changes nothing; `p + q` is both, and raises `InputError` where they are known
    to be of different models. `info` holds JSON facts about its making; `origin` says which model it is for and which
    edits it is, where that was noted."""

    terms: tuple[Term, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None

    def __add__(self, other: Patch) -> Patch:
        origin = joined(self.origin, len(self.terms), other.origin, len(other.terms))
        return Patch(self.terms + other.terms, {**self.info, **other.info}, origin)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def compact(self) -> Patch:
        """The same edit with terms of a kind on one module made into one: a long stream of edits stays fast."""
        groups: dict[Hashable, list[Term]] = {}
        for number, term in enumerate(self.terms):
            key = term.merge_key
            groups.setdefault(("own", number) if key is None else (type(term), key), []).append(term)
        terms = tuple(group[0] if len(group) == 1 else group[0].merge(group) for group in groups.values())
        if self.origin is None or len(terms) == len(self.terms):
            return Patch(terms, self.info, self.origin)
        return Patch(terms, self.info, self.origin.merged(len(terms)))

    def slim(self) -> Patch:
        """The same edit with low-rank terms as dense ones where those are smaller: a long stream of low-rank edits has
        more ranks than a matrix has rows."""
        terms = tuple(term.slim() if isinstance(term, LowRank) else term for term in self.terms)
        return Patch(terms, self.info, self.origin).compact()

    def without(self, number: int) -> Patch:
        """The patch without the edit of that number, counted from 1; what was made after it stays as it was made.
        Raises `InputError` where it has no such edit, or that edit's change is not known from others'."""
        if self.origin is None:
            raise InputError("the patch does not say which edits it is of")
        span, origin = self.origin.without(number)
        # without `info`, of which nobody knows what was that edit's
        return Patch(self.terms[:span.start] + self.terms[span.stop:], origin=origin)

    @property
    def is_finite(self) -> bool:
        return all(all_finite(tensor) for term in self.terms for tensor in term.tensors().values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for term in self.terms for tensor in term.tensors().values())

    def to(self, device: torch.device | str) -> Patch:
        return Patch(tuple(term.to(device) for term in self.terms), self.info, self.origin)

    def save(self, path: Path | str) -> None:
        """Writes one safetensors file, atomically: terms as `index.field`, everything else in the header."""
        tensors = {f"{number}.{name}": tensor for number, term in enumerate(self.terms)
                   for name, tensor in term.tensors().items()}
        terms = [{"kind": term.kind, **term.settings()} for term in self.terms]
        write_tensors(path, PatchHeader(info=dict(self.info), terms=tuple(terms), origin=self.origin), tensors)

    @staticmethod
    def load(path: Path | str) -> Patch:
        """Reads a file written by `save`. Raises `InputError` for any other file.

        A patch that diverged comes back as it is: that it did is a result.
        """
        header, tensors = read_tensors(path, PatchHeader)
        own: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            number, _, part = name.partition(".")
            own[number][part] = tensor
        try:
            terms = tuple(_restored(settings, own.pop(str(number), {})) for number, settings in enumerate(header.terms))
        except ValueError as error:
            raise damaged(path, header, str(error)) from error
        if own:
            raise damaged(path, header, f"it has tensors of a term '{min(own)}', which is none of its {len(terms)}")
        if header.origin and (problem := header.origin.misfit(len(terms))):
            raise damaged(path, header, problem)
        return Patch(terms, header.info, header.origin)


def _restored(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Term:
    """A term of a file. Raises `ValueError` where it is none."""
    given = {**settings, **tensors}
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in TERMS:
        raise ValueError(f"it has a term of kind {kind!r}, which this version does not know")
    try:
        term = _ADAPTERS[kind].validate_python(given)
    except ValidationError as error:
        raise ValueError(f"a term of kind '{kind}' has {first_problem(error)}") from error
    if problem := term.misfit({}):
        raise ValueError(f"a term of kind '{kind}' {problem}")
    return term
