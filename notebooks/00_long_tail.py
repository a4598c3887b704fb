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
# A network is trained on many images of some classes and on few of others. **Which classes does it
# lose, and would its accuracy tell you?**
#
# Afterwards you can make a long-tailed data set, find the damage class by class, and say what an
# accuracy leaves out. The lab ([first part](lab/1_see.ipynb)) does this by hand on one network;
# here it is measured over several *seeds*: runs that differ in all that is drawn at random.

# %% [markdown]
# ## Parameters
#
# Set them from outside: `papermill notebooks/00_long_tail.ipynb out.ipynb -p imbalance_ratio 50`.

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # rho of the closer looks, n_max / n_min of the training images
ratios: str = "1,10"  # further ratios that it is compared with, separated by commas
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each ratio, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, numbers_in, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 1, "workers": 0})
folder = project_path(p.figures)

# %% tags=["hide-input"]
import torch

from gcl_core.course.interaction import Choice, explore
from gcl_core.course.notebook import (
    JUDGED,
    judged,
    paired_difference,
    power,
    protocol,
    run_variants,
    show,
    table,
)
from gcl_core.figures.charts import confusion_maps, sweeps, values_by_class
from gcl_core.figures.lab import image_rows
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.figures.tail import count_bars, ratio_looks
from gcl_core.results.tables import mean_and_spread
from gcl_core.training.evaluation import Tally, outputs_of, weighted_accuracy

compared = sorted({*numbers_in("ratios", p.ratios, low=1), p.imbalance_ratio})
looks = ratio_looks(compared)

# %%
trained = run_variants(p, {ratio: ("ce", {"imbalance_ratio": ratio}) for ratio in compared})
closer = trained[p.imbalance_ratio]
data, few = closer[0].dataset, closer[0].dataset.groups["few"]
accuracy = {ratio: [run.result["per_class"] for run in trained[ratio]] for ratio in compared}
show(
    values_by_class(
        data,
        {"Test accuracy by class (%)": [over_seeds(looks[r], accuracy[r]) for r in compared]},
        percent=True,
    ),
    "00_accuracy",
    "Test accuracy of each class from head to tail, one line for each imbalance ratio.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# Each line is the mean of the seeds, its band goes from the lowest to the highest. Below the axis
# stand the training images of each class at the ratio of the closer look.

# %% [markdown]
# ## A long tail, made on purpose
#
# Class $j$ has $n_j$ training images. The most frequent one, the *head*, has $n_{\max}$, the rarest
# $n_{\min}$; the **imbalance ratio** is $\rho = n_{\max} / n_{\min}$. Benchmarks cut a balanced set
# of $C$ classes down (Cui et al. 2019; the paper, Sec. 4.1):
#
# $$n_j = \lfloor n_{\max}\, \rho^{-j/(C-1)} \rfloor, \qquad j = 0, \dots, C-1 .$$
#
# This is the profile `exp`; `step` gives half of the classes $n_{\max}$ and the others
# $n_{\max}/\rho$ (Cao et al. 2019).

# %% [markdown]
# **Three groups.** The 30 % of the classes with the most images are *many*-shot, the 30 % with the
# fewest *few*-shot, the rest *medium*. From a hundred classes on, many is above 100 images and few
# below 20 (Liu et al. 2019).

# %%
explore(
    lambda ratio, profile: count_bars(124, 10, ratio, profile),
    "00_counts",
    "Training images of each of ten classes, as bars on a linear and a logarithmic axis.",
    folder,
    ratio=Choice("imbalance ratio ρ", 100, (1, 2, 5, 10, 20, 50, 100)),
    profile=Choice("profile", "exp", ("exp", "step")),
)

# %% [markdown]
# Images come in whole numbers, so that a small data set does not keep its $\rho$ exactly: divide
# the first bar by the last.

# %% [markdown]
# ## Who pays
#
# The network is trained with cross-entropy (CE), which does nothing for the tail. *Top-1* is the
# accuracy on all test images. Those of digits and CIFAR are *balanced*: equally many of each class.

# %%
keys = ["top1", "many", "medium", "few"]
mildest = trained[compared[0]]
rows = [
    [
        looks[r].label,
        *(mean_and_spread([run.result[key] for run in trained[r]]) for key in keys),
        *(paired_difference(trained[r], mildest, key) for key in ("top1", "few")),
    ]
    for r in compared
]
less = looks[compared[0]].label
header = ["", "top-1 (%)", "many", "medium", "few", f"top-1 − ({less})", f"few − ({less})"]
table(header, rows, f"Largest ratio: {protocol(trained[compared[-1]])}. {JUDGED}.")

# %% [markdown]
# Here and in the next notebooks ± behind a level is the standard deviation of single runs, and ±
# behind a difference half of its 95 % t interval.

# %% [markdown]
# ## The count, or the class?
#
# Are the classes of the tail lost because they are rare, or because they are difficult? The same
# counts in reverse order make another tail.

# %%
turned = {"class_counts": tuple(data.class_counts[::-1]), "imbalance_ratio": None}
orders = {"this order": closer, **run_variants(p, {"reversed": ("ce", turned)})}
rows = [
    [
        name,
        ", ".join(data.class_names[j] for j in found[0].dataset.groups["few"][:5]),
        mean_and_spread([run.result["few"] for run in found]),
        paired_difference(found, closer, "few"),
    ]
    for name, found in orders.items()
]
found = power("few-shot", [(found, closer) for found in orders.values()], "few")
header = ["order of the classes", "few-shot classes", "accuracy (%)", "− this order"]
table(header, rows, f"{JUDGED}. Found four times in five: {found} points.")

# %% [markdown]
# An interval without zero says that it matters which classes are rare. A benchmark with one order
# of classes cannot tell that from the effect of the counts, and nor can our other results on
# digits.

# %% [markdown]
# ## Where the tail's images go

# %%
network = closer[0].network
logits = outputs_of(network, data.test, data, torch.device("cpu"))
guesses, labels = logits.argmax(1), data.test.labels
shown = {}
for j in sorted(few, key=lambda j: data.class_counts[j])[:3]:
    wrong = ((labels == j) & (guesses != j)).nonzero().flatten()[:7].tolist()
    if wrong:
        pictures = [(data.test.images.picture(i), data.class_names[guesses[i]]) for i in wrong]
        shown[data.class_names[j]] = pictures
if shown:
    show(
        image_rows(shown),
        "00_wrong",
        "Wrong test images of the rarest classes, each with the class that it is taken for.",
        folder,
        about_runs(closer[:1]),
    )

# %% [markdown]
# The word below an image is what the first network takes it for. The maps count all seeds: the row
# is the true class, the column the answer, in percent of the row.

# %%
confusion = {
    ratio: sum(torch.tensor(run.result["confusion"]) for run in trained[ratio])
    for ratio in (compared[0], p.imbalance_ratio)
}
show(
    confusion_maps(data, {looks[r].label: images.tolist() for r, images in confusion.items()}),
    "00_confusion",
    "Share of the test images of each class that are taken for each class, at two ratios.",
    folder,
    about_runs(mildest, closer),
)

# %%
rows = []
for ratio, images in confusion.items():
    asked, answered, right = images[few].sum(), images[:, few].sum(), images[few, few].sum()
    cells = [asked / images.sum(), answered / images.sum(), right / asked, right / answered]
    rows.append([looks[ratio].label, *(f"{100 * float(cell):.1f}" for cell in cells)])
header = ["few-shot classes (%)", "share of the images", "of the answers", "recall", "precision"]
table(header, rows, "All test images and seeds together.")

# %% [markdown]
# **What to notice.** Below the diagonal stand images taken for a more frequent class, above it
# those taken for a rarer one. A share of the answers below that of the images means that the
# network names rare classes too seldom.

# %% [markdown]
# ## Whose accuracy?
#
# If class $j$ comes in proportion to $w_j$, and the network is right on a fraction $a_j$ of it,
#
# $$\mathrm{accuracy}(w) = \frac{\sum_j w_j a_j}{\sum_j w_j}, \qquad w_j = n_j^{\,t}.$$
#
# At the tilt $t = 1$ the test has the training set's tail, at $t = 0$ all classes come alike, at
# $t = -1$ rare ones come most. The networks stay as they are.

# %%
tilts = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
counts = torch.tensor(data.class_counts, dtype=torch.float64)
tilted = {
    r: [[weighted_accuracy(row, counts**t) for t in tilts] for row in accuracy[r]] for r in compared
}
show(
    sweeps(
        tilts,
        "tilt $t$ of the test set",
        {"Accuracy of the same networks": [over_seeds(looks[r], tilted[r]) for r in compared]},
    ),
    "00_tilt",
    "Accuracy of the networks of each ratio on test sets tilted from tail-heavy to head-heavy.",
    folder,
    about_runs(*trained.values()),
)

# %%
header = ["accuracy (%)", "$t = -1$", "$t = 0$", "$t = 1$"]
places = [tilts.index(t) for t in (-1.0, 0.0, 1.0)]
rows = [
    [looks[r].label, *(mean_and_spread([row[i] for row in tilted[r]]) for i in places)]
    for r in compared
]
table(header, rows, protocol(closer))

# %% [markdown]
# A test with the training set's tail hides the damage. So benchmarks test on balanced images and
# report the groups. Whoever meets mostly head images may lose by re-balancing.

# %% [markdown]
# ## The classifier, or the features?
#
# A network learns $\log p(x \mid y) + \log \pi_y$ with the prior $\pi_y = n_y / \sum_i n_i$
# (derived in the [second part of the lab](lab/2_mend.ipynb)). Take $\log\pi_y$ away again. Nothing
# is trained; what comes back was lost by the prior alone.

# %%
prior = (counts / counts.sum()).log()
adjusted = []
for run in closer:
    outputs = outputs_of(run.network, run.dataset.test, run.dataset, torch.device("cpu"))
    tally = Tally(data.num_classes).add(outputs - prior, run.dataset.test.labels)
    adjusted.append(tally.accuracies(data.groups))

# %%
recalls = {"ce": accuracy[p.imbalance_ratio], "post_hoc": [a["per_class"] for a in adjusted]}
lines = [over_seeds(METHOD_LOOKS[name], rows) for name, rows in recalls.items()]
lines.append(over_seeds(looks[compared[0]], accuracy[compared[0]]))
show(
    values_by_class(data, {"Test accuracy by class (%)": lines}, percent=True),
    "00_prior",
    "Test accuracy by class of cross-entropy, with the prior taken away, and with equal counts.",
    folder,
    about_runs(mildest, closer),
)


# %%
def few_gain(ours, others):
    pairs = zip(ours, others, strict=True)
    return judged(
        [one["few"] - other["few"] if one["few"] is not None else None for one, other in pairs]
    )


plain, equal = ([run.result for run in runs] for runs in (closer, mildest))
rows = [
    ["prior taken away − CE", few_gain(adjusted, plain)],
    [f"({less}) − prior taken away", few_gain(equal, adjusted)],
]
table(["few-shot accuracy, points", "difference"], rows, f"{JUDGED}. {protocol(closer)}.")

# %% [markdown]
# The second row is what no shift by the prior brings back: there are too few images to learn the
# features, or the directions of the classifier's weights. Notebook 4 re-trains the classifier,
# notebook 5 looks at the features.

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. *Predict, then compute.* CIFAR-10-LT at $\rho = 100$ has $n_{\max} = 5000$. How many images has
#    its rarest class, how many all ten, and which share has the head? Use
#    `gcl_core.long_tailed_counts`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# `long_tailed_counts(5000, 10, 100)`: 50; 12,406; 40 %. The sum is nearly that of a geometric
# series, $n_{\max} / (1 - \rho^{-1/9})$.
#
# </details>

# %% [markdown]
# 2. *Predict, then compute.* A network is always right except on few-shot classes, where it never
#    is. How accurate is it at the tilts 0, 1 and −1?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell below has the numbers. At $t = 1$ a network that knows nothing of the tail is about as
# good as the trained ones.
#
# </details>

# %% tags=["solution", "hide-cell"]
blind = [0.0 if j in few else 100.0 for j in range(data.num_classes)]
print({t: round(weighted_accuracy(blind, counts**t), 1) for t in (0.0, 1.0, -1.0)})

# %% [markdown]
# 3. *Predict, then measure.* Train on the step profile:
#    `run_variants(p, {"step": ("ce", {"profile": "step"})})`. Which group loses most?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# With ten digits at $\rho = 100$: look at the medium one. It holds two classes with 124 images and
# two with one. A group is as good as the rule that made it.
#
# </details>

# %% [markdown]
# ## Summary
#
# Rare classes are lost to more frequent ones. A balanced test shows it, a long-tailed one does not.
# The prior explains a part, which a shift of the logits returns. The rest has to come from the
# features and the classifier. The method of this course therefore trains everything first and the
# classifier again afterwards (notebook 3).

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 1 and 4.1.
# - Y. Cui et al. *Class-Balanced Loss Based on Effective Number of Samples.* CVPR 2019.
# - K. Cao et al. *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss.* NeurIPS
#   2019.
# - Z. Liu et al. *Large-Scale Long-Tailed Recognition in an Open World.* CVPR 2019.
# - Y. Zhang et al. *Deep Long-Tailed Learning: A Survey.* arXiv 2110.04596, 2021.
