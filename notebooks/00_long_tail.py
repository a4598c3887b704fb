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
# Afterwards you can make a long-tailed subset of any data and name its groups, read the damage off
# a confusion matrix class by class, and say why an accuracy means nothing without the distribution
# of its test images. Everything that the other notebooks try to mend is measured here first.

# %% [markdown]
# ## Parameters
#
# By itself and from nothing this notebook takes 85 seconds and 2.0 GB of memory on two cores. With
# the defaults twenty small networks are trained and kept in `runs` for the next time.
#
# Any of them can be changed from outside, for example `papermill notebooks/00_long_tail.ipynb
# out.ipynb -p imbalance_ratio 50`. The slider below needs no training.

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
from gcl_core.course.notebook import checked_parameters, numbers_in, project_path

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

from gcl_core.analysis import embedding
from gcl_core.course.interaction import Choice, explore
from gcl_core.course.notebook import protocol, run_variants, show, table
from gcl_core.figures.charts import confusion_maps, embedding_maps, sweeps, values_by_class
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.figures.tail import count_bars, destination_bars, ratio_looks
from gcl_core.results.tables import mean_and_spread
from gcl_core.training.evaluation import destinations, weighted_accuracy

# %% [markdown]
# ## A long tail, made on purpose
#
# Let class $j$ have $n_j$ training images, the most frequent class (the *head*) $n_{\max}$ and the
# rarest $n_{\min}$. The **imbalance ratio** is $\rho = n_{\max} / n_{\min}$. The benchmarks of
# this field cut a balanced data set down with an exponential profile (Cui et al. 2019; the paper,
# Sec. 4.1): with $C$ classes, numbered from 0,
#
# $$n_j = \lfloor n_{\max}\, \rho^{-j/(C-1)} \rfloor .$$
#
# Each class then has the same fraction of the images of the one before it. The other profile,
# `step` (Cao et al. 2019), gives one half of the classes $n_{\max}$ images and the other half
# $n_{\max}/\rho$. The **groups** are named by training images: with ten classes the three most
# frequent are the *many*-shot classes, the three rarest *few*-shot, the four between them *medium*;
# with a hundred or more, many is above 100 images and few below 20 (Liu et al. 2019;
# `class_groups`).
#
# In JupyterLab the cell below has sliders. Everywhere else it shows their starting point.

# %%
explore(
    lambda ratio, profile: count_bars(124, 10, ratio, profile),
    "00_counts",
    "Training images of each of ten classes, as bars on a linear and a logarithmic axis, with the"
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
# **Digits-LT** is scikit-learn's set of 8×8 grey digits, cut down like that: 124 training images of
# the digit 0, and fewer of each following one. A network of three convolutions and 24,000 weights
# is trained on it for each ratio and seed, always with cross-entropy (CE) and nothing for the tail.
# The most frequent class keeps its images at every ratio: it is only the rest that is taken away.
# The test set stays balanced, 50 images of each class. *Top-1* is the accuracy over all of it;
# bands in figures and ± in tables are one standard deviation over seeds.

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
# **What to notice.** (The counts along the axis are those of the closer look, $\rho = 100$.) Top-1
# falls from 99 to 78 %, and nearly nine tenths of that are the few-shot classes': 99, 90, 58, 37 %.
# The many-shot classes do not notice. The rarest class, with one image, is at 6 %, below the 10 %
# of guessing: the network has not merely failed to learn it, it has learned hardly ever to answer
# with it. The bands are wide where the images are few. Each seed draws other images and other
# initial weights, and which of the two matters more is not separated here; with the images fixed
# (notebook 8) the few-shot classes still move by several points from seed to seed.
#
# Is it the counts, or are 7, 8 and 9 difficult digits? With 124 images each ($\rho = 1$) they are
# as good as the others, so they are not difficult in themselves; whether they are harder to learn
# *from few images* is exercise 4.
#
# ## Where the tail's images go
#
# Row $y$, column $j$ of the *confusion matrix* holds the test images of class $y$ that the network
# calls $j$, here in percent of the row; what is below one half is left blank. What is right lies on
# the diagonal.

# %%
mildest, closer = compared[0], p.imbalance_ratio  # two to look at
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
    destination_bars(data, {looks[r].label: parts[r] for r in compared}),
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
# **What to notice.** The matrix fills below the diagonal and stays nearly empty above it: rare
# classes are taken for more frequent ones, hardly ever the other way round. At $\rho = 100$, 58 of
# 100 few-shot images go to the other groups. But they do not all go to the head: twice as many go
# to *medium* classes as to *many* ones. A nine is taken for a three or a five (46 and 16 % of all
# nines), an eight most often for a three: to these a rare image goes because it *looks like* them.
# (In pixels, the nearest of all images of other digits is a three for 43 % of the nines and a five
# for 22 %; for an eight, among the more frequent digits, a three for 39 %.) Likeness explains the
# largest confusions, though not all (hardly any eight is nearest to a zero, and 14 % are taken for
# one); frequency explains which of the two is answered.
#
# ## Whose accuracy? What the weights of the test images do
#
# The accuracy over all test images depends on how many of them each class has. If the images that
# the network meets are of class $j$ in proportion to $w_j$, and it is right on a fraction $a_j$ of
# these,
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
        "tilt t of the test set",
        {"Accuracy of the same networks": [over_seeds(looks[r], tilted[r]) for r in compared]},
    ),
    "00_tilt",
    "Accuracy of the networks of each ratio on test sets tilted from tail-heavy to head-heavy: on"
    " the right all are near 100 percent, on the left they fan out.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# **What to notice.** Weighted as in training ($t = 1$), the network of $\rho = 100$ is right on
# 97.3 ± 1.0 % of the images, and the damage is invisible: the means of the four ratios are within
# two points of each other. On the balanced set it is at 77.6 ± 2.1 %, on the tail-heavy one ($t =
# -1$) at 38.4 ± 2.9 %. Nothing about the network has changed. So
#
# - an accuracy on test images with the same long tail says little about the tail; this is why the
#   benchmarks keep their test sets balanced, and report the groups;
# - whoever deploys where the head is what counts may lose by re-balancing: part of what the tail
#   gains can come from the head (notebooks 3 and 4 measure how much);
# - and if the class frequencies in use are known, training can aim at them: logit adjustment, which
#   adds a multiple of a class's log frequency to its logit, and LADE (Hong et al. 2021) take a
#   *stated* distribution as well as a balanced one.
#
# ## A first look at the features
#
# The last layer sees an image as a vector, its *feature* $f$. Are the tail's features bad, or are
# they only read badly? The paper's Fig. 1 argues with a t-SNE map that the tail is squeezed into a
# small part of the space. t-SNE places points in the plane such that each keeps its nearest
# neighbours. Below, the test images at two ratios, for the first seed: near in a map means near in
# angle; sizes and distances of clusters mean nothing (notebook 5 goes into that, and compares
# methods).

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
    " the sevens keep one, and eights and nines are spread between threes and fives.",
    folder,
    about_runs(trained[mildest], trained[closer]),
)

# %%
rows = []
for title, function, unit in (
    ("overlap (%)", embedding.overlap, 100),
    ("spread (degrees)", embedding.angular_spread, 1),
):
    for r in (mildest, closer):
        features = [embedding.features_of(run) for run in trained[r]]
        by_run = [
            embedding.group_means(unit * function(f, y, data.num_classes), data.groups)
            for f, y in features
        ]
        means = [mean_and_spread([run[g] for run in by_run]) for g in data.groups]
        rows.append([f"{title}, {looks[r].label}", *means])
table(["", *data.groups], rows, protocol(trained[closer]))

# %% [markdown]
# *Overlap* is the share of the ten nearest neighbours (by angle) of a test image that have another
# label; *spread* the mean angle between the features of a class and their mean direction.
#
# **What to notice.** With equal classes, ten islands; with the long tail, the eights and nines have
# no place of their own and lie between and among threes and fives. In numbers, the neighbours of a
# few-shot image are of another class in 28 instead of 2 of 100 cases. So part of the damage is in
# the features, and a better classifier alone cannot undo that. But only a part: 72 of 100
# neighbours do have the right label, while 37 of 100 such images are classified right. The features
# separate the rare classes better than the classifier does (though these neighbours are test
# images, of which it saw none); notebook 4 measures what another classifier gets out of them. "The
# tail is squeezed" is not quite what we see, though: in angle the few-shot classes are spread
# *more* widely than the others, 20 against 17 degrees. They lie in the wrong places rather than in
# too small a place. That is measured on test images of small digits, by two measures out of many;
# notebook 5 goes deeper.
#
# ## Exercises
#
# Each asks for a prediction or a measurement; the solution is folded away below it.

# %% [markdown]
# 1. *Predict, then compute.* CIFAR-10-LT at $\rho = 100$ has $n_{\max} = 5000$. How many images has
#    its rarest class, how many all ten together, and which share of them is the head's? Check with
#    `long_tailed_counts` (`from gcl_core import long_tailed_counts`).

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# `long_tailed_counts(5000, 10, 100)` gives 5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50: the
# rarest has 50, all together 12,406, and the head has 40 % of them. The sum is close to that of a
# geometric series, $n_{\max} / (1 - \rho^{-1/9}) \approx 12{,}484$, less the missing end (75) and
# what rounding down takes.
#
# </details>

# %% [markdown]
# 2. *Predict, then compute.* A network is right on every image of the classes 0 to 6 and on none of
#    7, 8 and 9. What is its accuracy on the balanced test set, and at the tilts $t = 1$ and $t =
#    -1$ of the counts above? Check with `weighted_accuracy`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# 70 %; 98.0 % ($298/304$); and 19.9 %, as three classes with 3, 2 and 1 images get four fifths of
# the weight at $t = -1$. At $t = 1$ a network that has never heard of three classes is level with
# the trained ones (97.3 ± 1.0 %).
#
# </details>

# %% tags=["solution", "hide-cell"]
blind = [100.0] * 7 + [0.0] * 3
if data.num_classes == 10:
    print([round(weighted_accuracy(blind, counts**t), 1) for t in (0.0, 1.0, -1.0)])

# %% [markdown]
# 3. *Predict, then measure.* Train on the step profile at $\rho = 100$
#    (`run_variants(p, {"step": ("ce", {"profile": "step"})})`): five classes with 124 images and
#    five with one. Which group loses most against the exponential profile, and why is the name
#    "medium" misleading here?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Top-1 is 57.6 ± 1.9 % (exponential: 77.6 ± 2.1 %). Few-shot: 15.3 ± 4.6 %, against 36.9 ± 5.3 %,
# as all three classes have a single image now. Medium loses even more, 57.9 ± 4.6 % against
# 91.9 ± 5.4 %: with ten classes the groups go by rank, so "medium" holds two classes with 124
# images (at 99.6 %) and two with one (at 10 and 23 %). A group is as good as the rule that made it.
#
# </details>

# %% [markdown]
# 4. *Is it the count or the digit?* Turn the tail around, so that 0 is the rarest digit:
#    `("ce", {"class_counts": (1, 2, 3, 5, 9, 16, 26, 44, 74, 124), "imbalance_ratio": None})`.
#    Predict the accuracy of the digit with one image before you measure it.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Few-shot (now 0, 1 and 2): 56.5 ± 5.0 %, against 36.9 ± 5.3 % of the tail 7, 8 and 9; the zero is
# right in 49 % of its images after a single example, where the nine was at 6 %. So it is both: the
# count makes a class weak, and the digit decides how weak, probably by whether a more frequent one
# looks like it. A benchmark with one fixed order of classes measures the two together.
#
# </details>

# %% [markdown]
# ## Summary
#
# A long tail is a distribution of training images in which most classes have few; $\rho$ and a
# profile say how uneven. After plain cross-entropy on it a network knows the many-shot classes as
# well as a balanced one does, and answers with more frequent look-alikes where a rare class would
# be right. Accuracy hides or shows this depending on the test images' own distribution. The damage
# is in the features as well as in the classifier, and so the method of this course trains
# everything first and then the classifier alone: its two stages (notebook 3).
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
# - Y. Zhang et al. *Deep Long-Tailed Learning: A Survey.* arXiv 2110.04596, 2021 (to read on).
