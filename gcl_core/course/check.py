"""Checks of what a student writes in the lab: at once, offline, with a hint that fits the mistake.

A check compares a function with an oracle on random inputs. Where they differ it says what differs
first, and whether the answer is that of a known mistake. `check.NAME(function)` gives a `Verdict`;
`check.NAME.right` is the oracle, for who is stuck and wants to go on.
"""

import linecache
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

CASES = 3  # random inputs of each check
Function = Callable[..., Any]


class Remark(Exception):
    """What is said of an answer that cannot be compared."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """Whether an answer is right, and the line that says so; a notebook shows the line."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.message}"


def _called(answer: Function, *given: Any) -> Any:
    return answer(*given)


@dataclass(frozen=True)
class Check:
    """A check of one function; called with the function it returns a `Verdict`.

    Attributes:
        name: what the function is called.
        given: its arguments, made anew from a generator.
        right: the oracle.
        mistakes: functions that err in a known way, by the hint that mends it.
        equal: other functions that are right as well.
        observed: what is compared, of a function and its arguments; its result unless said.
        what: how a message calls that.
    """

    name: str
    given: Callable[[Generator], tuple[Any, ...]]
    right: Function
    mistakes: Mapping[str, Function]
    equal: tuple[Function, ...] = ()
    observed: Callable[..., Any] = _called
    what: str = "the result"

    def __call__(self, answer: Function) -> Verdict:
        wrong = (self._wrong(answer, seed) for seed in range(CASES))
        found = next((message for message in wrong if message), None)
        if found:
            return Verdict(False, f"{self.name}: {found}")
        return Verdict(True, f"{self.name} is right on {CASES} random inputs")

    def _wrong(self, answer: Function, seed: int) -> str | None:
        """What is wrong with an answer on the inputs of a seed."""

        def given() -> tuple[Any, ...]:
            return self.given(torch.Generator().manual_seed(seed))

        def outcome(function: Function) -> Tensor | str:
            try:
                return _as_tensor(self.observed(function, *given()))
            except Exception as error:  # a known mistake may be one that cannot be computed
                return str(error)

        def with_hint(message: str, result: Tensor | str) -> str:
            known = [h for h, each in self.mistakes.items() if _same(result, outcome(each))]
            return ". ".join([message, *(known or _general(result, outcome(self.right)))[:1]])

        mine = given()
        try:
            raw = self.observed(answer, *mine)
        except Remark as remark:
            return str(remark)
        except Exception as error:  # whatever a student's lines raise
            return with_hint(_raised(error, answer), str(error))
        if raw is None:
            return "it returns nothing yet"
        try:
            result = _as_tensor(raw)
        except (TypeError, ValueError, RuntimeError):
            return f"it returns {type(raw).__name__}; numbers are wanted"
        for place, (before, after) in enumerate(zip(given(), mine, strict=True)):
            if isinstance(before, Tensor) and not _same(before.double(), after.double()):
                return f"it changes its argument number {place + 1}; make a new tensor instead"
        if any(_same(result, outcome(each)) for each in (self.right, *self.equal)):
            return None
        right = _as_tensor(self.observed(self.right, *given()))
        return with_hint(f"{self.what} {_difference(result, right)}", result)


def _raised(error: Exception, answer: Function) -> str:
    """The error's first line, and the student's line that it comes from."""
    message = f"it raises {type(error).__name__}: {error}".splitlines()[0]
    own = getattr(answer, "__code__", None)
    lines = [
        frame.f_code is own and linecache.getline(own.co_filename, number).strip()
        for frame, number in traceback.walk_tb(error.__traceback__)
    ]
    return next((f"{message}, at `{line}`" for line in lines if line), message)


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, tuple | list):
        return torch.stack([_as_tensor(each) for each in value])
    return torch.as_tensor(value).detach().double()


def _same(one: Tensor | str, other: Tensor | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):  # what was raised
        return isinstance(one, str) and isinstance(other, str) and one == other
    return one.shape == other.shape and bool(_close(one, other).all())


def _general(result: Tensor | str, right: Tensor | str) -> list[str]:
    """What may be wrong with any answer, for one that is none of a check's own mistakes."""
    if isinstance(result, str) or isinstance(right, str) or result.shape != right.shape:
        return []
    factors = (result / right)[right.isfinite() & (right != 0)]
    if not len(factors) or factors[0].nan_to_num() == 0 or not _same(result, factors[0] * right):
        return []
    factor = float(f"{float(factors[0]):.3g}")
    known = {100.0: "no percent here", -1.0: "the sign is the other one"}
    if factor not in known and not right.ndim:  # any two numbers have a factor
        return []
    reason = f": {known[factor]}" if factor in known else ""
    return [f"This is {factor:g} times what is wanted{reason}"]


def _close(one: Tensor, other: Tensor) -> Tensor:
    return torch.isclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _difference(result: Tensor, right: Tensor) -> str:
    if right.ndim and not result.ndim:
        return f"is one number; shape {tuple(right.shape)} is wanted"
    if result.ndim and not right.ndim:
        return f"has shape {tuple(result.shape)}; one number is wanted"
    if result.shape != right.shape:
        return f"has shape {tuple(result.shape)}, not {tuple(right.shape)}"
    if not right.ndim:
        return f"is {float(result):.4g}, not {float(right):.4g}"
    place = tuple((~_close(result, right)).nonzero()[0].tolist())
    at = ", ".join(map(str, place))
    return f"is {float(result[place]):.4g} at [{at}], not {float(right[place]):.4g}"


# Inputs.


def _normal(*shape: int, at: Generator) -> Tensor:
    return torch.randn(shape, generator=at)


def _labels(number: int, classes: int, at: Generator) -> Tensor:
    return torch.randint(classes, (number,), generator=at)


def _counts(classes: int, at: Generator) -> Tensor:
    """Class counts, all different; the first class is not the largest, nor the last the rarest."""
    return (3 * torch.randperm(50, generator=at)[:classes] + 2).roll(1)


def _linear(inputs: int, outputs: int, at: Generator) -> nn.Linear:
    """A layer whose weights are of this generator; PyTorch's own would be of the global one."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, generator=at)
    nn.init.normal_(layer.bias, generator=at)
    return layer


# See it. Below, x are inputs, y labels, z logits, n counts, c the number of classes.

SOFTMAX_TWICE = "cross_entropy has the softmax in it: give it the logits"
SUM = "This is the sum over the batch; the mean is wanted"

class_counts = Check(
    "class_counts",
    lambda at: (torch.tensor([0, 1, 3, 4])[_labels(30, 4, at)], 6),
    lambda y, c: y.bincount(minlength=c),
    {
        "Classes without an image are missing: they count 0": lambda y, c: y.unique(
            return_counts=True
        )[1],
        "The last classes have no image here: say how many classes there are": (
            lambda y, c: y.bincount()
        ),
        "These are shares; counts are wanted": lambda y, c: y.bincount(minlength=c) / len(y),
    },
)


def _two_steps(step: Function, x: Tensor, y: Tensor, model: nn.Linear) -> Tensor:
    """The weights after two steps on different batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    half = len(y) // 2
    step(model, optimizer, x[:half], y[:half])
    step(model, optimizer, x[half:], y[half:])
    return nn.utils.parameters_to_vector(model.parameters())


def _training_step(
    logits_of: Function = _called, *, zero: bool = True, late: bool = False, reduction: str = "mean"
) -> Function:
    """A training step, or one with a mistake in it."""

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(logits_of(model, x), y, reduction=reduction)
        if late:
            optimizer.step()
        if zero:
            optimizer.zero_grad()
        loss.backward()
        if not late:
            optimizer.step()

    return step


training_step = Check(
    "training_step",
    lambda at: (_normal(8, 3, at=at), _labels(8, 4, at), _linear(3, 4, at)),
    _training_step(),
    {
        "The weights do not move. In order: zero_grad(), backward(), step()": lambda *given: None,
        "Gradients of the batch before are still there: zero_grad() comes first": _training_step(
            zero=False
        ),
        "step() comes before backward(): it takes the gradients of the batch before": (
            _training_step(late=True)
        ),
        SUM: _training_step(reduction="sum"),
        SOFTMAX_TWICE: _training_step(lambda model, x: model(x).softmax(1)),
    },
    observed=_two_steps,
    what="the first weight that differs after two steps",
)

wrong_images = Check(
    "wrong_images",
    lambda at: (_normal(12, 3, at=at), _labels(12, 3, at)),
    lambda z, y: (z.argmax(1) != y).nonzero().flatten(),
    {
        "These are the right ones": lambda z, y: (z.argmax(1) == y).nonzero().flatten(),
        "This says yes or no for every image; nonzero() gives the indices": (
            lambda z, y: z.argmax(1) != y
        ),
        "nonzero() gives a column: flatten() it": lambda z, y: (z.argmax(1) != y).nonzero(),
        "The largest logit of each image is wanted: argmax(1)": lambda z, y: (
            (z.argmax(0) != y).nonzero().flatten()
        ),
        "This compares the largest logit itself; argmax(1) is its class": lambda z, y: (
            (z.amax(1) != y).nonzero().flatten()
        ),
        "These are labels, not the places of the images": lambda z, y: y[z.argmax(1) != y],
        "This is a tuple; its [0] has the indices": lambda z, y: torch.where(z.argmax(1) != y),
    },
)


def _confusion(at: Generator) -> tuple[Tensor]:
    """Images by true (row) and predicted (column) class; one class is never predicted."""
    confusion = torch.randint(1, 20, (4, 4), generator=at)
    confusion[:, 2] = 0
    return (confusion,)


ROWS_ARE_TRUE = "a row has the images of a class, a column those that are taken for it"

recall = Check(
    "recall",
    _confusion,
    lambda c: c.diagonal() / c.sum(1),
    {
        f"This is the precision: {ROWS_ARE_TRUE}": lambda c: c.diagonal() / c.sum(0),
        "Divide by the images of the class, not by all images": lambda c: c.diagonal() / c.sum(),
        "This is the share of the wrong ones": lambda c: 1 - c.diagonal() / c.sum(1),
        "The whole matrix is divided; only its diagonal() is right": lambda c: (
            c / c.sum(1, keepdim=True)
        ),
    },
)

precision = Check(
    "precision",
    _confusion,
    lambda c: c.diagonal() / c.sum(0),
    {
        f"This is the recall: {ROWS_ARE_TRUE}": lambda c: c.diagonal() / c.sum(1),
        "Divide by the images taken for the class, not by all images": lambda c: (
            c.diagonal() / c.sum()
        ),
        "This is the share of the wrong ones": lambda c: 1 - c.diagonal() / c.sum(0),
    },
    equal=(lambda c: c.diagonal() / c.sum(0).clamp(min=1),),  # never predicted: 0 instead of NaN
)

weighted_accuracy = Check(
    "weighted_accuracy",
    lambda at: (torch.rand(5, generator=at), torch.rand(5, generator=at)),
    lambda r, w: (r * w).sum() / w.sum(),
    {
        "The weights do not add up to 1: divide by their sum": lambda r, w: (r * w).sum(),
        "Every class counts alike here: use the weights": lambda r, w: r.mean(),
        "One number is wanted: sum over the classes": lambda r, w: r * w / w.sum(),
        "This is the mean of the products: sum them, then divide by the sum of the weights": (
            lambda r, w: (r * w).mean()
        ),
    },
)

# Understand and mend it.


def _odds(x: Tensor, share: Tensor, *, prior: float = 1.0, slope: float = 2.0) -> Tensor:
    return slope * x + prior * (share / (1 - share)).log()


log_odds = Check(
    "log_odds",
    lambda at: (_normal(6, at=at), 0.05 + 0.4 * torch.rand((), generator=at)),
    _odds,
    {
        "The prior is missing: add log(share / (1 - share))": lambda x, s: _odds(x, s, prior=0.0),
        "The prior stands there without a logarithm": lambda x, s: 2 * x + s / (1 - s),
        "These are the odds; take their logarithm": lambda x, s: _odds(x, s).exp(),
        "This is the probability; the log-odds are wanted": lambda x, s: _odds(x, s).sigmoid(),
        "The classes are exchanged: rare is around +1, common around -1": lambda x, s: _odds(
            x, s, slope=-2.0
        ),
        "The prior's sign: a rare class has smaller odds": lambda x, s: _odds(x, s, prior=-1.0),
        "The other class has a prior too: 1 - share": lambda x, s: 2 * x + s.log(),
        "The two squares differ by 4x; half of it is 2x": lambda x, s: _odds(x, s, slope=4.0),
        "Odds are a ratio of both classes; this leaves one of the densities out": lambda x, s: (
            -((x - 1) ** 2) / 2 + (s / (1 - s)).log()
        ),
    },
)


def _log_prior(counts: Tensor) -> Tensor:
    return (counts / counts.sum()).log()


COUNTS_NOT_LOGS = "The counts stand there without a logarithm"
SHARES_NOT_LOGS = "The shares stand there without a logarithm"

logit_adjusted = Check(
    "logit_adjusted",
    lambda at: (_normal(4, 5, at=at), _counts(5, at), 0.5 + float(torch.rand((), generator=at))),
    lambda logits, counts, tau: logits - tau * _log_prior(counts),
    {
        "The prior's sign: its logarithm is taken away": lambda z, n, tau: z + tau * _log_prior(n),
        COUNTS_NOT_LOGS: lambda z, n, tau: z - tau * n,
        SHARES_NOT_LOGS: lambda z, n, tau: z - tau * n / n.sum(),
        "tau is not used": lambda z, n, tau: z - _log_prior(n),
        "tau is a factor of the logarithm alone": lambda z, n, tau: tau * (z - _log_prior(n)),
    },
    equal=(  # a constant for all classes of an image changes no arg max
        lambda z, n, tau: z - tau * n.log(),
        lambda z, n, tau: z - tau * (n / n.max()).log(),
        lambda z, n, tau: z.log_softmax(1) - tau * _log_prior(n),
    ),
)

tilted_shares = Check(
    "tilted_shares",
    lambda at: (_counts(5, at), 0.3 + 2 * float(torch.rand((), generator=at))),
    lambda n, t: n**t / (n**t).sum(),
    {
        "Shares add up to 1: divide by the sum": lambda n, t: n**t,
        "The sign of the tilt: 1 is the training mix": lambda n, t: n**-t / (n**-t).sum(),
        "The tilt is an exponent, not a factor": lambda n, t: n * t / n.sum(),
        "Take the power first, then divide by the sum of the powers": (
            lambda n, t: (n / n.sum()) ** t
        ),
        "The tilt is not used": lambda n, t: n / n.sum(),
    },
)

prior_loss = Check(
    "prior_loss",
    lambda at: (_normal(6, 4, at=at), _labels(6, 4, at), _counts(4, at)),
    lambda z, y, n: cross_entropy(z + _log_prior(n), y),
    {
        "The prior's sign: in training its logarithm is added": (
            lambda z, y, n: cross_entropy(z - _log_prior(n), y)
        ),
        COUNTS_NOT_LOGS: lambda z, y, n: cross_entropy(z + n, y),
        SHARES_NOT_LOGS: lambda z, y, n: cross_entropy(z + n / n.sum(), y),
        "The prior is missing": lambda z, y, n: cross_entropy(z, y),
        "The prior is added to every logit, not to that of the label alone": lambda z, y, n: (
            cross_entropy(z + _log_prior(n) * nn.functional.one_hot(y, len(n)), y)
        ),
        SOFTMAX_TWICE: lambda z, y, n: cross_entropy((z + _log_prior(n)).softmax(1), y),
        SUM: lambda z, y, n: cross_entropy(z + _log_prior(n), y, reduction="sum"),
        "These are class weights; the prior is added to the logits": (
            lambda z, y, n: cross_entropy(z, y, weight=1 / n)
        ),
    },
)

cloud_sizes = Check(
    "cloud_sizes",
    lambda at: (_counts(5, at),),
    lambda n: (n.max() / n).log() / (n.max() / n.min()).log(),
    {
        "The counts' logarithms are wanted, not the counts": (
            lambda n: (n.max() - n) / (n.max() - n.min())
        ),
        "The rarest class has size 1: divide by the largest": lambda n: (n.max() / n).log(),
        "This is 1 for the head; the cloud is wide for the tail": (
            lambda n: (n / n.min()).log() / (n.max() / n.min()).log()
        ),
        "Divide by the largest difference of logarithms, not by the logarithm of n_max": (
            lambda n: (n.max() / n).log() / n.max().log()
        ),
    },
)


def _cosines(at: Generator) -> tuple[Any, ...]:
    """Cosines, noise, cloud sizes, scale and multiplier."""
    cosine, noise = _normal(4, 5, at=at).tanh(), _normal(4, 5, at=at).clamp(-1, 1)
    return cosine, noise, torch.rand(5, generator=at), 20.0, 0.5


clouded = Check(
    "clouded",
    _cosines,
    lambda z, e, d, s, k: s * (z - k * d * e.abs()),
    {
        "The absolute value is missing: a cloud only ever lowers a cosine": (
            lambda z, e, d, s, k: s * (z - k * d * e)
        ),
        "The cloud's sign: it lowers the cosine": lambda z, e, d, s, k: s * (z + k * d * e.abs()),
        "The scale multiplies the cloud as well": lambda z, e, d, s, k: s * z - k * d * e.abs(),
        "The scale is missing": lambda z, e, d, s, k: z - k * d * e.abs(),
        "The sizes are missing: every class has the same cloud here": (
            lambda z, e, d, s, k: s * (z - k * e.abs())
        ),
        "The multiplier k is missing": lambda z, e, d, s, k: s * (z - d * e.abs()),
        "The noise is missing: every image has the whole cloud here": lambda z, e, d, s, k: (
            s * (z - k * d)
        ),
    },
)


def _of_target(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None])[:, 0]


saturation = Check(
    "saturation",
    lambda at: (_normal(6, 4, at=at), _labels(6, 4, at)),
    lambda z, y: 1 - _of_target(z.softmax(1), y),
    {
        "This is p_y itself; 1 - p_y is the gradient": lambda z, y: _of_target(z.softmax(1), y),
        "Take the probability of the image's own class, not the largest": (
            lambda z, y: 1 - z.softmax(1).amax(1)
        ),
        "The softmax is over the classes of an image: softmax(1)": (
            lambda z, y: 1 - _of_target(z.softmax(0), y)
        ),
        "This is the loss; its gradient is 1 - p_y": lambda z, y: -_of_target(z.log_softmax(1), y),
        "labels alone choose columns of every image; the rows are torch.arange(len(labels))": (
            lambda z, y: 1 - z.softmax(1)[:, y]
        ),
        "gather() wants a column of labels, labels[:, None], and gives a column": (
            lambda z, y: 1 - z.softmax(1).gather(1, y)
        ),
    },
)

# Re-balance and judge it.


def _norms(weight: Tensor) -> Tensor:
    return weight.norm(dim=1, keepdim=True)


tau_normalised = Check(
    "tau_normalised",
    lambda at: (_normal(3, 5, at=at), 0.3 + float(torch.rand((), generator=at))),
    lambda w, tau: w / _norms(w) ** tau,
    {
        "One norm for each class, which is a row: dim=1": lambda w, tau: w / _norms(w.T).T ** tau,
        "This is one norm for the whole matrix: dim=1, keepdim=True": (
            lambda w, tau: w / w.norm() ** tau
        ),
        "Norms have to be a column to divide rows: keepdim=True": (
            lambda w, tau: w / w.norm(dim=1) ** tau
        ),
        "tau is an exponent, not a factor": lambda w, tau: w / (tau * _norms(w)),
        "tau is not used": lambda w, tau: w / _norms(w),
        "Divide: a large norm is to shrink": lambda w, tau: w * _norms(w) ** tau,
        "These are squared norms: take the root": lambda w, tau: w / _norms(w) ** (2 * tau),
    },
)


def _image_probabilities(labels: Tensor, power: float = -1.0) -> Tensor:
    weights = torch.bincount(labels)[labels] ** power
    return weights / weights.sum()


def _class_probabilities(labels: Tensor) -> Tensor:
    weights = 1 / torch.bincount(labels)
    return weights / weights.sum()


image_probabilities = Check(
    "image_probabilities",
    lambda at: (torch.cat([torch.arange(4), _labels(16, 4, at)]),),
    _image_probabilities,
    {
        "The probabilities do not sum to 1: divide by their sum": lambda y: 1 / y.bincount()[y],
        "This draws the head more often still: divide by the count": (
            lambda y: _image_probabilities(y, 1.0)
        ),
        "One number for each image is wanted: index the counts by the labels": (
            _class_probabilities
        ),
        "Divide by the sum over all images, not over the classes": (
            lambda y: _class_probabilities(y)[y]
        ),
        "Every image is as likely here: the head is still drawn most": (
            lambda y: _image_probabilities(y, 0.0)
        ),
        "A class has these probabilities, which its images have to share": (
            lambda y: torch.full((len(y),), 1 / 4)
        ),
        "Divide by the count, not by its square root": lambda y: _image_probabilities(y, -0.5),
        "This is the share of each image's class: divide by the count": lambda y: (
            y.bincount()[y] / len(y)
        ),
    },
)


def _gradients(loss_of: Function, x: Tensor, y: Tensor, *parts: nn.Module) -> Tensor | None:
    """The loss, and the gradients of the weights of backbone and classifier."""
    loss = loss_of(*parts, x, y)
    if loss is None:
        return None
    if not isinstance(loss, Tensor):
        raise Remark(f"it returns {type(loss).__name__}; a tensor is wanted, for its gradient")
    if loss.ndim:
        raise Remark(f"it returns shape {tuple(loss.shape)}; the mean loss is one number")
    weights = [weight for part in reversed(parts) for weight in part.parameters()]
    if any(weight.grad is not None for weight in weights):
        raise Remark("it calls backward(); return the loss alone, the loop goes on from there")
    if loss.requires_grad:
        loss.backward()
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    return torch.cat([loss.flatten(), *map(torch.flatten, gradients)])


retraining_loss = Check(
    "retraining_loss",
    lambda at: (_normal(6, 3, at=at), _labels(6, 4, at), _linear(3, 2, at), _linear(2, 4, at)),
    lambda body, head, x, y: cross_entropy(head(body(x).detach()), y),
    {
        "The backbone has a gradient too: detach() the features": (
            lambda body, head, x, y: cross_entropy(head(body(x)), y)
        ),
        "The classifier has no gradient: detach the features alone": (
            lambda body, head, x, y: cross_entropy(head(body(x)).detach(), y)
        ),
        SUM: lambda body, head, x, y: cross_entropy(head(body(x).detach()), y, reduction="sum"),
        SOFTMAX_TWICE: lambda body, head, x, y: cross_entropy(head(body(x).detach()).softmax(1), y),
    },
    observed=_gradients,
    what="the list of the loss and all gradients",
)


def _interval(
    ours: Tensor, others: Tensor, factor: float | None = None, *, spread: Function = Tensor.std
) -> tuple[Tensor, Tensor]:
    """Mean difference and half length of its 95 % interval, or one with a mistake in it."""
    differences = ours - others
    n = len(differences)
    half = float(stats.t.ppf(0.975, n - 1)) if factor is None else factor
    return differences.mean(), half * spread(differences) / n**0.5


paired_interval = Check(
    "paired_interval",
    lambda at: tuple((_normal(5, at=at) + 3 * _normal(2, 5, at=at)).double()),
    _interval,
    {
        "The factor of a normal distribution is too small for few seeds: stats.t.ppf": (
            lambda a, b: _interval(a, b, float(stats.norm.ppf(0.975)))
        ),
        "A factor of 2 is too small for few seeds: stats.t.ppf": lambda a, b: _interval(a, b, 2.0),
        "This is one standard error: multiply by stats.t.ppf": lambda a, b: _interval(a, b, 1.0),
        "95 % leave 2.5 % at each end: ppf(0.975, ...)": (
            lambda a, b: _interval(a, b, float(stats.t.ppf(0.95, len(a) - 1)))
        ),
        "ppf(0.025, ...) is the lower end, below zero; ppf(0.975, ...) is the upper one": (
            lambda a, b: _interval(a, b, float(stats.t.ppf(0.025, len(a) - 1)))
        ),
        "n differences have n - 1 degrees of freedom": (
            lambda a, b: _interval(a, b, float(stats.t.ppf(0.975, len(a))))
        ),
        "This is the whole length; half of it is wanted": (
            lambda a, b: _interval(a, b, spread=lambda d: 2 * d.std())
        ),
        "This is the variance; its root, std(), is wanted": (
            lambda a, b: _interval(a, b, spread=Tensor.var)
        ),
        "Divide by the square root of n, not by n": (
            lambda a, b: _interval(a, b, spread=lambda d: d.std() / len(d) ** 0.5)
        ),
        "The mean comes first, then half the length": lambda a, b: _interval(a, b)[::-1],
        "The variance of a sample divides by n - 1: correction=1, in NumPy ddof=1": (
            lambda a, b: _interval(a, b, spread=lambda d: d.std(correction=0))
        ),
        "The square root of n is missing: this is where single seeds lie": (
            lambda a, b: _interval(a, b, spread=lambda d: d.std() * len(d) ** 0.5)
        ),
        "Take the differences first, seed by seed: what a seed does to both cancels": (
            lambda a, b: _interval(a, b, spread=lambda d: (a.var() + b.var()).sqrt())
        ),
        "The sign: it is ours minus the others": lambda a, b: _interval(b, a),
        "These are the two ends; the mean and half the length are wanted": (
            lambda a, b: _interval(a, b)[0] + torch.tensor([-1, 1]) * _interval(a, b)[1]
        ),
    },
    what="the pair of mean and half length",
)

CHECKS = tuple(each for each in list(globals().values()) if isinstance(each, Check))
