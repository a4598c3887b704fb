# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 3. Re-balance and judge
#
# The last layer of a network is its *classifier*; what it is given are the *features*. They may be
# good although the classifier is not. Mend it alone, then ask what the numbers are worth.
#
# Each step: **predict** first, **write** the missing lines, run the check, look. Stuck?
# `tau_normalised = check.tau_normalised.right` takes the answer, and you go on.

# %% tags=["parameters"]
dataset: str = "clothes"  # clothes, digits, or folder:PATH with small images of one size
imbalance_ratio: float = 0.0  # n_max / n_min of the training images; 0: the data as they are
seeds: int = 5  # splits and trainings that the last comparison is made on

# %%
from gcl_core.course.notebook import checked_parameters

p = checked_parameters(globals(), minimum={"imbalance_ratio": 0, "seeds": 2})

# %%
import copy

import torch
import torch.nn.functional as F
from scipy import stats

import gcl_core
from gcl_core.course import check, lab
from gcl_core.course.lab import moved, see
from gcl_core.figures.charts import values_by_class
from gcl_core.figures.lab import paired_intervals
from gcl_core.figures.looks import METHOD_LOOKS, SAMPLER_LOOKS, Look
from gcl_core.figures.series import Series
from gcl_core.losses.priors import LogitAdjustedLoss
from gcl_core.networks.heads import NormalisedHead

data = lab.lab_data(p.dataset, p.imbalance_ratio)
few = data.few
model = lab.train(data, F.cross_entropy)
backbone, head = model[:2], model[2]
features = backbone(data.x_test).detach()
found = {"ce": lab.recalls(head(features), data.y_test)}

# %% [markdown]
# ## Step 12. The norm of a class
#
# A class with longer weights $w_j$ has larger logits. *τ-normalisation* makes the lengths alike.
#
# **Predict**: which classes have the longest weights?
#
# **Write** $w_j / \lVert w_j \rVert^\tau$, class by class: at $\tau = 1$ all have length one.


# %% tags=["answer"]
def tau_normalised(weight, tau):
    """Rows divided by their norm to the power tau: (C, D) to (C, D)."""
    return weight / weight.norm(dim=1, keepdim=True) ** tau


check.tau_normalised(tau_normalised)

# %%
norms = head.weight.detach().norm(dim=1)
directions = tau_normalised(head.weight.detach(), 1.0)
found["ce_tau_norm"] = lab.recalls(features @ directions.T, data.y_test)
panels = {"Norm of the weights": [Series(METHOD_LOOKS["ce"], norms)]}
panels["Recall (%)"] = [Series(METHOD_LOOKS[name], found[name]) for name in found]
ranks = stats.spearmanr(data.counts, norms).statistic
see(
    values_by_class(data.dataset, panels),
    "Norm of each class's weights; recall of each class before and after normalisation.",
    f"Rank correlation of images and norm: {ranks:.2f}.",
    moved("Mean recall of all classes", found["ce"].mean(), found["ce_tau_norm"].mean()),
)
print("gcl_core has the same:", torch.allclose(NormalisedHead(head, 1.0).weight, directions))

# %% [markdown]
# ## Step 13. A sampler by hand
#
# Another way: show the classifier every class equally often.
#
# **Predict**: how often is the rarest class drawn in an epoch?
#
# **Write** the probability of each image, so that all classes are equally likely.


# %% tags=["answer"]
def image_probabilities(labels):
    """Probability of each image in one draw, all classes alike: (N,) to (N,), sum 1."""
    weights = 1 / torch.bincount(labels)[labels]
    return weights / weights.sum()


check.image_probabilities(image_probabilities)

# %%
probabilities = image_probabilities(data.y)
draws = torch.Generator().manual_seed(0)
drawn = torch.multinomial(probabilities, len(data.y), replacement=True, generator=draws)
shares = {
    "IB": data.counts / len(data.y),
    "CB": torch.bincount(data.y[drawn], minlength=data.classes) / len(data.y),
}
names = {"IB": "every image alike", "CB": "yours, one epoch"}
rare = data.from_head_to_tail[-1]
see(
    values_by_class(
        data.dataset,
        {"Share of the draws (%)": [
            Series(Look(names[s], SAMPLER_LOOKS[s].colour), 100 * shares[s]) for s in shares]},
    ),
    "Share of each class in an epoch, with every image alike and with the sampler.",
    f"Training images of {data.dataset.class_names[rare]}: {data.counts[rare]};"
    f" draws of the class in one epoch: {int((data.y[drawn] == rare).sum())}.",
)  # fmt: skip
theirs = gcl_core.ClassBalancedSampler(data.y).weights
print("gcl_core has the same:", torch.allclose(theirs, probabilities.double()))

# %% [markdown]
# ## Step 14. Re-train the classifier
#
# Draw with your sampler, and leave the features as they are. This is *cRT*, classifier re-training.
#
# **Predict**: which classes lose?
#
# **Write** the loss: cross-entropy of `head` on features without a gradient.


# %% tags=["answer"]
def retraining_loss(backbone, head, x, y):
    """Mean cross-entropy, from which no gradient reaches the backbone."""
    features = backbone(x).detach()
    return F.cross_entropy(head(features), y)


check.retraining_loss(retraining_loss)


# %%
def retrained(data, model, seed, epochs=10):
    """A copy of the model's classifier, trained on with classes drawn alike."""
    backbone, head = model[:2], copy.deepcopy(model[2])
    optimizer, draws = lab.optimizer_of(head), torch.Generator().manual_seed(seed)
    probabilities = image_probabilities(data.y)
    for _ in range(epochs):
        drawn = torch.multinomial(probabilities, len(data.y), replacement=True, generator=draws)
        for batch in drawn.split(64):
            loss = retraining_loss(backbone, head, data.x[batch], data.y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head


# %%
found["ce_crt"] = lab.recalls(retrained(data, model, 0)(features), data.y_test)
see(
    values_by_class(
        data.dataset,
        {"Recall (%)": [Series(METHOD_LOOKS[name], found[name]) for name in ("ce", "ce_crt")]},
        percent=True,
    ),
    "Recall of each class before and after the classifier is trained again.",
    moved("Mean recall of all classes", found["ce"].mean(), found["ce_crt"].mean()),
    moved("Of the few-shot classes it", found["ce"][few].mean(), found["ce_crt"][few].mean()),
)

# %% [markdown]
# ## Step 15. Is it more than luck?
#
# Another seed splits, draws and trains anew. All methods share its luck, which cancels in
# *differences*.
#
# **Predict**: which gain is larger than luck?
#
# **Write** the mean difference, and $t\,s / \sqrt n$, half of its $95\,\%$ t interval: $s$ is the
# standard deviation of the differences, and `stats.t.ppf` gives $t$.


# %% tags=["answer"]
def paired_interval(ours, others):
    """Mean of ours minus others, and the half length of its interval: two (n,) to two numbers."""
    differences = ours - others
    n = len(differences)
    return differences.mean(), stats.t.ppf(0.975, n - 1) * differences.std() / n**0.5


check.paired_interval(paired_interval)

# %%
mean_recall = {"CE": []}
for seed in range(p.seeds):
    own = lab.lab_data(p.dataset, p.imbalance_ratio, seed)
    ce = lab.train(own, F.cross_entropy, seed)
    tested, prior = ce[:2](own.x_test), (own.counts / own.counts.sum()).log()
    outputs = {
        "CE": ce[2](tested),
        "prior taken away": ce[2](tested) - prior,
        "prior in the loss": lab.train(own, LogitAdjustedLoss(own.counts), seed)(own.x_test),
        "unit norms": tested @ tau_normalised(ce[2].weight, 1.0).T,
        "classifier re-trained": retrained(own, ce, seed)(tested),
    }
    for name, logits in outputs.items():
        mean_recall.setdefault(name, []).append(lab.recalls(logits, own.y_test).mean())

# %%
scores = {name: torch.stack(values) for name, values in mean_recall.items()}
gains = {name: (scores[name] - scores["CE"]).tolist() for name in list(scores)[1:]}
intervals = {name: paired_interval(scores[name], scores["CE"]) for name in gains}
clear = [name for name, (mean, half) in intervals.items() if abs(mean) > half]
see(
    paired_intervals(gains, intervals),
    "Gain in mean recall over cross-entropy, seed by seed, with mean and interval.",
    f"{p.seeds} seeds. Intervals without zero: {', '.join(clear) or 'none'}.",
    "Found four times in five, with as many seeds, is a true gain of",
    "; ".join(f"{lab.detectable(values):.1f} points ({name})" for name, values in gains.items()),
    "or more.",
)

# %% [markdown]
# Each interval is a chance for a false alarm. Judge by the comparison that you planned.

# %% [markdown]
# ## Step 16. Your own images
#
# Set `dataset` to `folder:PATH` for small images of one size in `PATH/train/CLASS/…` and
# `PATH/test/CLASS/…`. Photographs go through a network that is trained already:
# [your own photographs](../../docs/photographs.md).

# %% [markdown]
# ## Questions

# %% [markdown]
# **Does a cosine classifier need τ-normalisation?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# No: it divides by the norm of each class's weights already in training.
#
# </details>

# %% [markdown]
# **A sampler shows a class with few images as often as all others. What can go wrong?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# The same few images come again and again: they are learned by heart.
#
# </details>

# %% [markdown]
# **Why are the features not trained with the balanced sampler as well?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# They would see fewer images of the frequent classes, and learn the rare ones by heart.
#
# </details>

# %% [markdown]
# **An interval holds zero. Is there no effect?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# One cannot say. The smallest gain that would have been found says how much such a result means.
#
# </details>

# %% [markdown]
# **Why pair by seed?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# A hard split is hard for both methods. The difference does not have that luck in it.
#
# </details>
