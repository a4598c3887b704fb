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
# # Lab 2. Understand and mend it
#
# Why does a network lose the rare classes, and how little is enough to mend it?
#
# Each step: **predict** first, **write** the missing lines, run the check, look. Stuck?
# `log_odds = check.log_odds.right` takes the answer, and you go on.

# %% tags=["parameters"]
dataset: str = "clothes"  # clothes, digits, or folder:PATH with small images of one size
imbalance_ratio: float = 0.0  # n_max / n_min of the training images; 0: the data as they are

# %%
from gcl_core.course.notebook import checked_parameters

p = checked_parameters(globals(), minimum={"imbalance_ratio": 0})

# %%
import torch
import torch.nn.functional as F

import gcl_core
from gcl_core.analysis.planar_network import few_digits, train_plane
from gcl_core.course import check, lab
from gcl_core.course.interaction import Choice, Slider, explore
from gcl_core.course.lab import moved, see
from gcl_core.figures.charts import sweeps, values_by_class
from gcl_core.figures.lab import prior_shift
from gcl_core.figures.looks import METHOD_LOOKS, Look
from gcl_core.figures.planar_maps import Trained, planes
from gcl_core.figures.series import Series

data = lab.lab_data(p.dataset, p.imbalance_ratio)
counts, few = data.counts, data.few
model = lab.train(data, F.cross_entropy)
logits = model(data.x_test).detach()
found = {"ce": lab.recalls(logits, data.y_test)}

# %% [markdown]
# ## Step 6. A prior moves the boundary
#
# An image is one number $x$ here: normal around $-1$ in the common class, around $+1$ in the rare
# one, with standard deviation one. The rare class has a *share* of all images.
#
# **Predict**: at which $x$ are both classes equally likely?
#
# **Write** the log-odds
# $\log\frac{p(x \mid \text{rare})\,\text{share}}{p(x \mid \text{common})(1 - \text{share})}$.


# %% tags=["answer"]
def log_odds(x, share):
    """Log-odds of the rare class: (N,) places and its share, a tensor, to (N,)."""
    return 2 * x + (share / (1 - share)).log()


check.log_odds(log_odds)

# %%
explore(
    prior_shift,
    "lab_prior",
    "Densities of two classes on a line, times their shares, and the place where they are equal.",
    None,
    share=Slider("share of the rare class", 0.05, 0.01, 0.5, 0.01),
)
share = torch.tensor(0.05)
boundary = ((1 - share) / share).log() / 2
print(f"log-odds at x = {boundary:.2f}: {log_odds(boundary, share).abs():.1f}")

# %% [markdown]
# Both curves kept their shape. Only the *prior* $\pi_y$, the share of a class, moved the boundary.
# A network learns $\log p(x \mid y) + \log \pi_y$.

# %% [markdown]
# ## Step 7. Take the prior away
#
# *Post-hoc logit adjustment* trains nothing. (Figures call cross-entropy CE.)
#
# **Predict**: which classes gain?
#
# **Write** $z_j - \tau \log \pi_j$, with $\pi_j = n_j / \sum_i n_i$.


# %% tags=["answer"]
def logit_adjusted(logits, counts, tau):
    """Logits without tau times the log prior: (N, C), (C,) to (N, C)."""
    prior = counts / counts.sum()
    return logits - tau * prior.log()


check.logit_adjusted(logit_adjusted)

# %%
found["post_hoc"] = lab.recalls(logit_adjusted(logits, counts, 1.0), data.y_test)
see(
    values_by_class(
        data.dataset,
        {"Recall (%)": [Series(METHOD_LOOKS[name], found[name]) for name in ("ce", "post_hoc")]},
        percent=True,
    ),
    "Recall of each class with cross-entropy, and with the prior taken away.",
    moved("Mean recall of all classes", found["ce"].mean(), found["post_hoc"].mean()),
    moved("Of the few-shot classes it", found["ce"][few].mean(), found["post_hoc"][few].mean()),
)
theirs = logits - gcl_core.losses.priors.logit_adjustment(counts).float()
ours = logit_adjusted(logits, counts, 1.0)
print("gcl_core has the same:", torch.allclose(theirs.softmax(1), ours.softmax(1), atol=1e-4))

# %% [markdown]
# ## Step 8. The price
#
# A test may have any mix of classes. Let their shares be $\propto n_j^t$: the *tilt* $t = 1$ is the
# training mix, $0$ every class alike; below $0$ rare classes come most.
#
# **Predict**: for which tilts is plain cross-entropy better?
#
# **Write** the shares.


# %% tags=["answer"]
def tilted_shares(counts, tilt):
    """Shares in proportion to counts ** tilt, which sum to one: (C,) to (C,)."""
    powers = counts**tilt
    return powers / powers.sum()


check.tilted_shares(tilted_shares)

# %%
tilts = [round(-1 + 0.1 * i, 1) for i in range(21)]


def tilt_line(look, recalls):
    return Series(look, [float((recalls * tilted_shares(counts, t)).sum()) for t in tilts])


explore(
    lambda tau: sweeps(
        tilts,
        "tilt $t$ of the test mix",
        {"": [tilt_line(METHOD_LOOKS["ce"], found["ce"]), tilt_line(
            METHOD_LOOKS["post_hoc"],
            lab.recalls(logit_adjusted(logits, counts, tau), data.y_test),
        )]},
    ),
    "lab_tilt",
    "Accuracy against the tilt of the test mix, with cross-entropy and after adjustment.",
    None,
    tau=Slider("τ", 1.0, 0.0, 3.0, 0.25),
)  # fmt: skip

# %% [markdown]
# ## Step 9. Into the loss
#
# Train with the prior added to the logits. Then the logits alone are without it.
#
# **Predict**: is this better than taking the prior away afterwards?
#
# **Write** the mean cross-entropy of $z_j + \log \pi_j$.


# %% tags=["answer"]
def prior_loss(logits, y, counts):
    """Mean cross-entropy of logits plus the log prior: (N, C), (N,), (C,) to one number."""
    return F.cross_entropy(logits + (counts / counts.sum()).log(), y)


check.prior_loss(prior_loss)

# %%
aware = lab.train(data, lambda z, y: prior_loss(z, y, counts))
found["logit_adjustment"] = lab.recalls(aware(data.x_test), data.y_test)
three = ("ce", "post_hoc", "logit_adjustment")
see(
    values_by_class(
        data.dataset,
        {"Recall (%)": [Series(METHOD_LOOKS[name], found[name]) for name in three]},
        percent=True,
    ),
    "Recall of each class with cross-entropy, adjusted afterwards, and adjusted in the loss.",
    moved(
        "From afterwards to in the loss the mean recall",
        found["post_hoc"].mean(),
        found["logit_adjustment"].mean(),
    ),
)
theirs = gcl_core.losses.priors.LogitAdjustedLoss(counts)(logits, data.y_test)
print("gcl_core has the same:", bool(theirs.isclose(prior_loss(logits, data.y_test, counts))))

# %% [markdown]
# ## Step 10. A cloud instead
#
# A *cosine classifier* gives cosines between features and class weights, times a scale $s$. GCL
# lowers each by noise, its *cloud*, of size $\delta_j = \log\frac{n_{\max}}{n_j}$ divided by the
# largest.
#
# **Predict**: which class has no cloud?
#
# **Write** the sizes, and $s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|)$.


# %% tags=["answer"]
def cloud_sizes(counts):
    """Cloud size of each class, 0 for the most frequent and 1 for the rarest: (C,) to (C,)."""
    sizes = (counts.max() / counts).log()
    return sizes / sizes.max()


def clouded(cosine, noise, sizes, scale, k):
    """Clouded logits: (N, C) cosines and noise, (C,) sizes to (N, C)."""
    return scale * (cosine - k * sizes * noise.abs())


check.cloud_sizes(cloud_sizes), check.clouded(clouded)

# %%
draws = torch.Generator().manual_seed(0)


def gcl_loss(cosine, y):
    noise = (torch.randn(cosine.shape, generator=draws) / 3).clamp(-1, 1)
    return F.cross_entropy(clouded(cosine, noise, cloud_sizes(counts), 10.0, 1.0), y)


plain = lab.train(data, lambda cosine, y: F.cross_entropy(10 * cosine, y), cosine=True)
cloud = lab.train(data, gcl_loss, cosine=True)
found["no_cloud"] = lab.recalls(plain(data.x_test), data.y_test)
found["gcl"] = lab.recalls(cloud(data.x_test), data.y_test)

# %%
see(
    values_by_class(
        data.dataset,
        {"Recall (%)": [Series(METHOD_LOOKS[name], found[name]) for name in ("no_cloud", "gcl")]},
        percent=True,
    ),
    "Recall of each class of a cosine classifier, without clouds and with them.",
    moved("Mean recall of all classes", found["no_cloud"].mean(), found["gcl"].mean()),
    moved("Of the few-shot classes it", found["no_cloud"][few].mean(), found["gcl"][few].mean()),
)
cosine, noise = plain(data.x_test).detach(), torch.rand(len(data.y_test), data.classes)
theirs = gcl_core.GCLLoss(counts, scale=10.0, noise_multiplier=1.0).logits(cosine, noise)
ours = clouded(cosine, noise, cloud_sizes(counts), 10.0, 1.0)
print("gcl_core has the same:", torch.allclose(theirs, ours, atol=1e-4))

# %% [markdown]
# ## Step 11. See it in the plane
#
# Three handwritten digits and two features: every angle is in the picture. An arrow is a class; a
# fan is its cloud.
#
# **Predict**: whose images stop learning first?
#
# **Write** $1 - p_y$, the size of an image's gradient. Near zero the softmax is *saturated*.


# %% tags=["answer"]
def saturation(logits, labels):
    """1 - p_y of each image: (N, C), (N,) to (N,)."""
    probability = logits.softmax(1)
    return 1 - probability[torch.arange(len(labels)), labels]


check.saturation(saturation)

# %%
digits, epochs = few_digits(), (0, 5, 10, 20, 50, 100, 200)
own = cloud_sizes(torch.tensor(digits.class_counts))
losses = {"CE": 0.0, "GCL": 1.0}
trained = {
    name: train_plane(
        digits,
        gcl_core.GCLLoss(
            digits.class_counts,
            scale=10,
            noise_multiplier=k,
            generator=torch.Generator().manual_seed(0),
        ),
        keep=epochs,
    )
    for name, k in losses.items()
}

# %%
explore(
    lambda epoch: planes(
        digits,
        {
            f"{name}, epoch {epoch}": Trained(trained[name][epoch], clouds=k * own if k else None)
            for name, k in losses.items()
        },
        columns=2,
    ),
    "lab_plane",
    "Features of three digits in the plane with anchors and arcs, with cross-entropy and GCL.",
    None,
    epoch=Choice("epoch", 200, epochs),
)

# %%
noise = (torch.randn(100, 1, len(own), generator=draws) / 3).clamp(-1, 1)
lines, last = [], len(own) - 1
for name, k, look in (("CE", 0.0, METHOD_LOOKS["ce"]), ("GCL", 1.0, METHOD_LOOKS["gcl"])):
    values = []
    for plane in trained[name].values():
        images = plane.train[digits.train_labels == last]
        cosines = F.normalize(images) @ F.normalize(plane.anchors).T
        drawn = clouded(cosines, noise, own, 10.0, k).flatten(0, 1)
        values.append(100 * float(saturation(drawn, torch.full((len(drawn),), last)).mean()))
    lines.append(Series(Look(name, look.colour), values))
see(
    sweeps(epochs, "epoch", {f"Digit {digits.class_names[last]}: gradient": lines},
           "mean $1 - p_y$ of training images (%)", doubling=True),
    "Mean gradient of the rarest digit's training images by epoch, with each loss's own logits.",
    moved("At the end, from CE to GCL, it", lines[0].values[-1], lines[1].values[-1]),
)  # fmt: skip

# %% [markdown]
# ## Questions

# %% [markdown]
# **Two classes are equally common. What does logit adjustment change?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# Nothing: the same number is taken from both logits.
#
# </details>

# %% [markdown]
# **Why is $\log \pi$ taken away afterwards, but added in the loss?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# The loss fits logit plus $\log \pi$ to the training images, which have the prior in them. So the
# logits alone are without it.
#
# </details>

# %% [markdown]
# **What does a larger $\tau$ cost?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# Images of frequent classes, which then go to rare ones; so also the precision of the rare ones.
#
# </details>

# %% [markdown]
# **What would a cloud without the absolute value do on average?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# It would raise a cosine as often as lower it: no margin, only noise.
#
# </details>

# %% [markdown]
# **When is a softmax saturated for an image, and what follows?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# When $p_y$ is near one: its gradient vanishes, and the image moves nothing any more.
#
# </details>
