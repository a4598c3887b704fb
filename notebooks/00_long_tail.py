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
# # 0. What is a long tail, and what does it do to a network?
#
# Count the photographs of animals on your disk, or the words of a book: a few kinds come very
# often, most come seldom. Training data have this shape unless somebody has balanced them. Here a
# network is trained with plain cross-entropy on handwritten digits whose classes are more and more
# unequal, and asked four questions: which classes does it still know, where do the images of the
# others go, does the overall accuracy show it, and are the features to blame or the classifier?
#
# Afterwards you can make a long-tailed subset of any data and name its groups, read the damage off a
# confusion matrix class by class, and say why an accuracy means nothing without the distribution of
# its test images. Everything that the other notebooks try to mend is measured here first.

# %% [markdown]
# ## Parameters
#
# MEASURED
#
# Any of them can be changed from outside, for example `papermill notebooks/00_long_tail.ipynb
# out.ipynb -p imbalance_ratio 50`. Some need no training at all: the slider below is one of them.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # rho of the closer looks, n_max / n_min of the training images
ratios: str = "1,10,50"  # further ratios that it is compared with, separated by commas
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each ratio, from seed 0 on
points: int = 500  # at most this many images in a map of the features
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.notebook import checked_parameters, numbers_in, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "imbalance_ratio": 1, "workers": 0, "points": 10}
)
folder = project_path(p.figures)
compared = sorted({*numbers_in("ratios", p.ratios, low=1), p.imbalance_ratio})

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here, before anything trains. What follows comes from `gcl_core`; each
# function says in its docstring what it computes, and `?` behind its name shows that.

# %%
import torch

from gcl_core import embedding
from gcl_core.evaluation import destinations, weighted_accuracy
from gcl_core.figures import (
    about_runs,
    confusion_maps,
    embedding_maps,
    over_seeds,
    sweeps,
    values_by_class,
)
from gcl_core.interaction import Choice, explore
from gcl_core.notebook import protocol, run_variants, show, table
from gcl_core.tables import mean_and_spread
from gcl_core.tail_figures import count_bars, destination_bars, ratio_looks

# %% [markdown]
# ## A long tail, made on purpose
#
# Let class $j$ have $n_j$ training images, $n_{\max}$ the most frequent class (the *head*) and
# $n_{\min}$ the rarest. The **imbalance ratio** is $\rho = n_{\max} / n_{\min}$. The benchmarks of
# this field cut a balanced data set down with an exponential profile (Cui et al. 2019; the paper,
# Sec. 4.1): with $C$ classes, numbered from 0,
#
# $$n_j = \lfloor n_{\max}\, \rho^{-j/(C-1)} \rfloor .$$
#
# Each class then has the same fraction of the images of the one before it. The other profile,
# `step`, gives one half of the classes $n_{\max}$ images and the other half $n_{\max}/\rho$. The
# **groups** are named by training images: with ten classes the three most frequent are *many*, the
# three rarest *few*, the four between them *medium*; with a hundred or more, many is above 100
# images and few below 20 (`class_groups`).
#
# In JupyterLab the cell below has sliders. Everywhere else it shows their starting point.

# %%
explore(
    lambda ratio, profile: count_bars(124, 10, ratio, profile),
    "00_counts",
    "Training images of each of ten classes, as bars on a linear and on a logarithmic axis, with the"
    " share of the many-, medium- and few-shot classes.",
    folder,
    ratio=Choice("imbalance ratio ρ", 100, (1, 2, 5, 10, 20, 50, 100)),
    profile=Choice("profile", "exp", ("exp", "step")),
)

# %% [markdown]
# **What to notice.** The exponential profile is a straight staircase on the logarithmic axis. At
# $\rho = 100$ the three rarest of ten classes have 6 of 304 images, 2 %; a network that has never
# heard of them would still be right on 98 % of its training images. And since images come in whole
# numbers, small data do not keep their $\rho$: $\lfloor 1.24 \rfloor = 1$ image in the last class
# makes the true ratio 124. (CIFAR-100-LT at $\rho = 200$ has the same flaw: 2 instead of 2.5
# images, in truth 250.)
#
# ## Training on it
#
# One network for each ratio and seed, all with cross-entropy (CE) and nothing for the tail. The
# head keeps its images at every ratio: it is only the rest that is taken away. The test set stays
# balanced, 50 images of each class of Digits-LT.

# %%
variants = {ratio: ("ce", {"imbalance_ratio": ratio}) for ratio in compared}
trained = run_variants(p, variants)
data = trained[p.imbalance_ratio][0].dataset
looks = ratio_looks(compared)
print(data)

# %%
accuracy = {ratio: [run.result["per_class"] for run in trained[ratio]] for ratio in compared}
show(
    values_by_class(
        data,
        {"Test accuracy by class (%)": [over_seeds(looks[r], accuracy[r]) for r in compared]},
        percent=True,
    ),
    "00_accuracy",
    "Test accuracy of each class, head to tail, one line for each imbalance ratio: the more unequal"
    " the classes, the lower the rare ones, while the head stays near 100 percent.",
    folder,
    about_runs(*trained.values()),
)

# %%
keys = ["top1", "many", "medium", "few"]
rows = [
    [
        looks[r].label,
        str(sum(trained[r][0].dataset.class_counts)),
        *(mean_and_spread([run.result[key] for run in trained[r]]) for key in keys),
    ]
    for r in compared
]
header = ["", "training images", "top-1 (%)", "many", "medium", "few"]
table(header, rows, f"Largest ratio: {protocol(trained[compared[-1]])}.")

# %% [markdown]
# NOTICE1
#
# ## Where the tail's images go
#
# Row $y$, column $j$ of the *confusion matrix* holds the test images of class $y$ that the network
# calls $j$, here in percent of the row. What is right lies on the diagonal.

# %%
mildest, closer = compared[0], p.imbalance_ratio
confusion = {
    ratio: sum(torch.tensor(run.result["confusion"]) for run in trained[ratio])
    for ratio in compared
}
show(
    confusion_maps(data, {looks[r].label: confusion[r].tolist() for r in (mildest, closer)}),
    "00_confusion",
    "Share of the test images of each class (rows) that are taken for each class (columns), at the"
    " smallest ratio and at the one looked at closely; there the lower left triangle fills.",
    folder,
    about_runs(trained[mildest], trained[closer]),
)

# %%
parts = {ratio: destinations(confusion[ratio], data.groups) for ratio in compared}
show(
    destination_bars({looks[r].label: parts[r] for r in compared}, data.class_names),
    "00_destinations",
    "Bars for each class and ratio: share of test images classified right, and taken for a many-,"
    " medium- or few-shot class. Errors of rare classes go to more frequent ones.",
    folder,
    about_runs(*trained.values()),
)

# %%
few = data.groups["few"]
rows = [
    [looks[r].label, *(f"{float(share[few].mean()):.1f}" for share in parts[r].values())]
    for r in compared
]
header = ["few-shot test images (%)", "right", *(f"taken for {g}" for g in data.groups)]
table(header, rows, "All seeds together; a few-shot class taken for another one is in the last.")

# %% [markdown]
# NOTICE2
#
# ## Whose accuracy? What the weights of the test images do
#
# The accuracy over all test images depends on how many of them each class has. If class $j$ makes
# up the share $w_j$ of the images that the network meets, and is right on a fraction $a_j$ of them,
#
# $$\mathrm{accuracy}(w) = \frac{\sum_j w_j a_j}{\sum_j w_j}, \qquad w_j = n_j^{\,t}.$$
#
# One number $t$ tilts the test set: at $t = 1$ it has the long tail of the training data, at $t =
# 0$ all classes come equally often (the benchmark), at $t = -1$ the tail comes most often. The
# networks stay as they are; all lines below use the same test sets, tilted by the counts at the
# ratio of the closer look.

# %%
tilts = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
counts = torch.tensor(data.class_counts, dtype=torch.float64)
tilted = {
    r: [[weighted_accuracy(row, counts**t) for t in tilts] for row in accuracy[r]] for r in compared
}
show(
    sweeps(
        tilts,
        "tilt t: tail-heavy test set (−1), balanced (0), as in training (1)",
        {"Accuracy of the same networks": [over_seeds(looks[r], tilted[r]) for r in compared]},
    ),
    "00_tilt",
    "Accuracy of the networks of each ratio on test sets tilted from tail-heavy to head-heavy: on"
    " the right all are near 100 percent, on the left they fan out.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# NOTICE3
#
# ## A first look at the features
#
# The last layer sees an image as a vector, its *feature* $f$. Are the tail's features bad, or are
# they only read badly? The paper's Fig. 1 argues with a t-SNE map that the tail is squeezed into a
# small part of the space. Below, the test images at two ratios: near in a map means near in angle;
# sizes and distances of clusters mean nothing (notebook 5 goes into that, and compares methods).

# %%
show(
    embedding_maps(
        data,
        {
            looks[r].label: embedding.map_of(trained[r][0], "test", points=p.points)
            for r in (mildest, closer)
        },
    ),
    "00_embedding",
    "Two t-SNE maps of test features: with equal classes ten separate clusters, with the long tail"
    " the images of the few-shot classes lie in the margins of other clusters.",
    folder,
    about_runs(trained[mildest], trained[closer]),
)

# %%
measures = {"overlap (%)": [], "spread (degrees)": []}
for r in (mildest, closer):
    features = [embedding.features_of(run) for run in trained[r]]
    for title, function, unit in (
        ("overlap (%)", embedding.overlap, 100),
        ("spread (degrees)", embedding.angular_spread, 1),
    ):
        by_run = [
            embedding.group_means(unit * function(f, y, data.num_classes), data.groups)
            for f, y in features
        ]
        means = [mean_and_spread([run[g] for run in by_run]) for g in data.groups]
        measures[title].append([f"{title}, {looks[r].label}", *means])
table(["", *data.groups], sum(measures.values(), []), protocol(trained[closer]))

# %% [markdown]
# NOTICE4
#
# ## Exercises
#
# Each asks for a prediction or a measurement; the solution is folded away below it.

# %% [markdown]
# EXERCISES
#
# ## Summary
#
# SUMMARY
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 1 and 4.1,
#   Fig. 1.
# - Y. Cui et al. *Class-Balanced Loss Based on Effective Number of Samples.* CVPR 2019.
# - K. Cao et al. *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss.* NeurIPS
#   2019.
# - Z. Liu et al. *Large-Scale Long-Tailed Recognition in an Open World.* CVPR 2019.
# - Y. Hong et al. *Disentangling Label Distribution for Long-tailed Visual Recognition.* CVPR 2021.
# - Y. Zhang et al. *Deep Long-Tailed Learning: A Survey.* arXiv 2110.04596, 2021.
