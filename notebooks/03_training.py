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
# # 3. Training: what does GCL change, and in which stage?
#
# Here cross-entropy (CE) and GCL are trained on the same long-tailed images and watched through
# both stages: learning the features on the data as they are, then re-balancing the classifier on
# frozen features. The paper's claim (Table 1) is that GCL followed by classifier re-training (cRT)
# is better than CE with mixup followed by cRT. To see *which* part does what, five methods are run,
# over several seeds: CE, with mixup added, then with cRT added, and GCL without and with cRT. (CE
# with cRT but without mixup is in notebook 4, GCL without mixup in notebook 1.)
#
# Afterwards you can say how much of a method's gain comes from the loss and how much from the
# second stage, and what the gain costs the frequent classes.

# %% [markdown]
# ## Parameters
#
# By itself and from nothing this notebook takes 74 seconds and 2.0 GB of memory on two cores. The
# defaults are 304 training images and a network of 24,000 weights. For real images give
# `dataset="cifar10"` or `dataset="folder:PATH"`; then the default is the published code's 200 + 30
# epochs (hours on a CPU), and `preset="smoke"` is a try-out.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each method, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0})
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here, before anything trains. `run_variants` trains several methods side
# by side, one process for each core; the rest is for tables and figures.

# %%
import torch

from gcl_core.analysis.saturation import saturation
from gcl_core.course.notebook import (
    paired_difference,
    protocol,
    run_variants,
    show,
    table,
)
from gcl_core.figures.charts import confusion_maps, sweeps, training_curves, values_by_class
from gcl_core.figures.looks import GROUP_LOOKS, METHOD_LOOKS
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import curve, over_seeds
from gcl_core.results.tables import mean_and_spread

# %% [markdown]
# ## Two stages
#
# **Stage 1** sees every image once an epoch (instance-balanced sampling) and learns features and
# classifier together. CE minimises $-\log \mathrm{softmax}(W f + b)_y$; GCL minimises Eq. 12, the
# cross-entropy of the clouded cosine logits
#
# $$z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|), \qquad \cos\theta_j =
# \frac{w_j^\top f}{\lVert w_j\rVert \lVert f \rVert}. \quad (11)$$
#
# Here $f$ are the features of an image and $w_j$ the weights of class $j$, its *anchor*; $\theta_j$
# is the angle between them, $s = 30$ a constant scale, $\delta_j$ the size of the cloud (0 for the
# class with the most images, 1 for the one with the fewest), $\varepsilon_j$ Gaussian noise, and
# $k = 0.5$ a factor of the published code, which the paper's formula does not have. Notebook 2 is
# about all of these. At test time there is no noise: the logits are *clean*.
#
# **mixup** (Zhang et al.) trains on blends $\lambda x_a + (1 - \lambda) x_b$ of two images, with
# the loss $\lambda L(y_a) + (1 - \lambda) L(y_b)$; here $\lambda$ is uniform in [0, 1]. The
# published GCL has it in both stages.
#
# **Stage 2** freezes the features and trains the classifier alone, on re-sampled images: every
# class about equally often. The two recipes differ in more than their features, as published:
# `ce_mixup_crt` starts a new classifier (Kang et al.) and trains it without mixup; `gcl_crt` goes
# on with the one of stage 1, at a small rate, with mixup, a cloud, a margin and a focal factor, as
# the GCL code does. The paper says that it follows Kang et al., that is, a new classifier; its code
# does not (notebook 6 has both).
#
# *Many*-, *medium*- and *few-shot* classes are the 30 % of classes with the most images, the
# middle, and the 30 % with the fewest (with 100 classes or more: above 100, 20 to 100, and below 20
# training images). *Top-1* is the accuracy over all test images.
#
# A run is a folder named by a hash of its settings. Methods that share stage 1 share that folder,
# and what is finished is only read.

# %%
methods = ["ce", "ce_mixup", "ce_mixup_crt", "gcl", "gcl_crt"]
trained = run_variants(p, {method: (method, {}) for method in methods})
data = trained["ce"][0].dataset
print(data)

# %% [markdown]
# On Digits-LT each seed also draws its own test images and its own long-tailed subset. The spread
# between seeds therefore holds the luck of the draw, which is large: the rarest class is *one*
# image. With so few images "ratio 100" asks for 1.24 images in the last class; it gets 1, and the
# true ratio is the one printed above.
#
# ## Curves
#
# Each line is the mean over the seeds, the band its standard deviation. All accuracies are those of
# clean logits on the balanced test set. They are drawn to be looked at: no epoch is chosen by them,
# and every number below is that of the last epoch.

# %%
titles = {"train_loss": "Training loss", "top1": "Top-1 (%)", "few": "Few-shot classes (%)"}
shown = ["ce", "ce_mixup_crt", "gcl_crt"]
show(
    training_curves(
        {
            title: [curve(METHOD_LOOKS[m], trained[m], key) for m in shown]
            for key, title in titles.items()
        },
        stage2_starts=trained["gcl_crt"][0].settings.stage1.epochs,
    ),
    "03_curves",
    "Training loss, top-1 and few-shot accuracy by epoch for CE, CE with mixup and cRT, and GCL"
    " with cRT, through both stages.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# **What to notice.** The loss of CE goes to about zero: the network fits every training image, the
# single one of the last class included, and still gets fewer than half of the few-shot test images
# right. (Compare losses within a line and a stage only: mixup, the scale and the objective of stage
# 2 change what the number means.) The few-shot accuracy of GCL leaves zero first and stays above
# that of CE. In stage 2 `ce_mixup_crt` starts a new classifier, hence the dip; GCL goes on with its
# own, at a fiftieth of the learning rate of stage 1. Its top-1 rises for a few epochs (1.8 ± 1.1
# points after four) and is back where it was after thirty, while the few-shot classes gain all
# along. That is seen on test images, so nothing may be chosen by it.
#
# ## Stage 1, watched
#
# Which classes are learnt first, and which still give gradient? Below, CE beside stage 1 of GCL at
# a dozen epochs of three runs: the test accuracy of each group, and each group's share in the sum
# of the gradients $1 - p_y$ of all training images, without augmentation and with the clouds of the
# objective (notebook 1 explains it). Equal steps along the axis are equal factors; 0 is before the
# first epoch.

# %%
watched = {m: (m, {}) for m in ("ce", "gcl")}
stage1 = run_variants(p, watched, seeds=min(p.seeds, 3), watched=True)
epochs = stage1["ce"][0].kept
moments = {m: [[run.at(epoch) for epoch in epochs] for run in stage1[m]] for m in watched}
accuracy = {
    METHOD_LOOKS[m].label: [
        over_seeds(GROUP_LOOKS[g], [[then.result[g] for then in run] for run in moments[m]])
        for g in data.groups
    ]
    for m in watched
}
show(
    sweeps(epochs, "epoch", accuracy, doubling=True),
    "03_accuracy_by_epoch",
    "Test accuracy of the many-, medium- and few-shot classes by epoch of stage 1 for CE and GCL:"
    " many first, few last; under GCL medium and few earlier and higher, many later.",
    folder,
    about_runs(*stage1.values()),
)

# %%
pushing = {
    m: [[saturation(then, cloud=m == "gcl").share for then in run] for run in moments[m]]
    for m in watched
}
shares = {
    METHOD_LOOKS[m].label: [
        over_seeds(
            GROUP_LOOKS[g],
            [[100 * float(share[list(c)].sum()) for share in run] for run in pushing[m]],
        )
        for g, c in data.groups.items()
    ]
    for m in watched
}
show(
    sweeps(epochs, "epoch", shares, "share of the gradient (%)", doubling=True),
    "03_gradient_by_epoch",
    "Share of the many-, medium- and few-shot classes in the sum of the gradients of all training"
    " images, by epoch of stage 1, for CE and GCL.",
    folder,
    about_runs(*stage1.values()),
)

# %% [markdown]
# **What to notice.** Accuracy comes from the head downwards in both. Under CE each group needs some
# four to ten times the epochs of the one before; under GCL the medium classes follow the head
# closely, and the few-shot ones come six to ten times later. GCL is slower with the head; it
# reaches the 36 % of the tail at which CE levels off in about half the epochs, and goes on.
#
# After notebook 1 the second picture is a surprise. Under CE the head's share of the gradient falls
# to a fifth, and the six few-shot images end with half of it. Under GCL they end with less than a
# tenth, and the head keeps six tenths to the end. Most of that fall is there without mixup: a
# cosine classifier with $s = 30$ and no cloud ends with less than a fifth for the tail, and the
# cloud raises that share (notebook 1). Mixup, which is part of the published recipe, does the rest:
# a network trained on blends stays unsure of unblended images too, and the head has most of these.
# The paper's reading, that saturation filters the head out so that training turns to the tail, does
# not describe, on these data, the recipe it is measured with; the gain in the tail comes all the
# same.
#
# ## Accuracy by class

# %%
show(
    values_by_class(
        data,
        {
            "Test accuracy by class (%)": [
                over_seeds(METHOD_LOOKS[m], [run.result["per_class"] for run in trained[m]])
                for m in shown
            ]
        },
        percent=True,
    ),
    "03_accuracy_by_class",
    "Test accuracy of each class, head to tail, for CE, CE with mixup and cRT, and GCL with cRT.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# Where do the lost images go? Below, each row is a true class and each column what it was taken
# for, in percent of the row, over the test images of all seeds.

# %%
compared = ["ce", "gcl_crt"]
show(
    confusion_maps(
        data,
        {
            METHOD_LOOKS[m].label: sum(
                torch.tensor(run.result["confusion"]) for run in trained[m]
            ).tolist()
            for m in compared
        },
    ),
    "03_confusion",
    "Confusion matrices of CE and of GCL with cRT over the test images of all seeds.",
    folder,
    about_runs(*(trained[m] for m in compared)),
)

# %% [markdown]
# **What to notice.** CE mistakes in one direction: the images of the rare classes are taken for
# frequent and medium ones (below the diagonal), hardly ever the other way round. GCL with cRT
# recovers most of them, and pays with mistakes above the diagonal: some images of every frequent
# class are now taken for one of the rarest.
#
# The same in numbers. The last two columns are differences in top-1 *seed by seed*, on the same
# images: what the draw of the images does to both methods cancels.

# %%
keys = ["top1", "many", "medium", "few"]
rows = [
    [
        METHOD_LOOKS[m].label,
        *(mean_and_spread([run.result[key] for run in trained[m]]) for key in keys),
        *(paired_difference(trained[m], trained[base]) for base in ("ce", "ce_mixup_crt")),
    ]
    for m in methods
]
header = ["method", "top-1 (%)", "many", "medium", "few", "− CE", "− (CE + mixup + cRT)"]
table(header, rows, f"{protocol(trained['gcl_crt'])}; methods of one stage end after the first.")

# %% [markdown]
# **What to notice.** On these images, with this protocol:
#
# - GCL with cRT is above CE on every seed, by far more than the spread. The whole gain is in the
#   few-shot classes; the many-shot ones lose several points.
# - Mixup alone changes the top-1 by less than its spread. Stage 1 of GCL alone brings all of the
#   gain in top-1 over CE, and more than half of that in the few-shot classes. Stage 2 then moves
#   accuracy from the many- and the medium-shot ones (7.7 and 7.1 points) to the few-shot ones
#   (17.5); the net effect on the top-1 is 0.1 ± 2.4 points here, and 2.7 ± 2.0 when we ran
#   everything again with other noise in the clouds and all else the same.
# - Against CE with mixup *and* cRT, the fair opponent in the paper (79.15 against 82.68 on
#   CIFAR-10-LT), GCL gains several points as well, with its first stage alone. How sure is that? At
#   120 epochs the gain is 4.4 ± 2.8, and 5.1 ± 1.2 with the other noise; at 200 epochs (exercise 1)
#   we found 3.8 ± 2.5 and 2.8 ± 3.5, the last no longer above its spread. At ratio 50 (the
#   README's table) it is −0.1 ± 3.7: none, though 18 points in the few-shot classes.
#
# ## Exercises
#
# Each asks for a prediction or a measurement.

# %% [markdown]
# 1. Run with `preset="official"` (200 + 30 epochs). Which of the statements above survive? Which
#    method profits most from the longer training?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Top-1 is then 78.8 ± 2.0 % for CE, 79.6 ± 2.9 % with mixup, 85.1 ± 3.3 % with mixup and cRT,
# 87.9 ± 3.6 % for GCL and 89.0 ± 2.9 % for GCL with cRT. GCL with cRT is above CE on every seed
# again (by 10.2 ± 1.7 points), through the few-shot classes; mixup alone is within its spread; GCL
# alone brings most of the gain, no longer all; and over CE with mixup and cRT the gain is 3.8 ± 2.5
# points. The means of the two methods with mixup and without a cloud rise most, by 2.6 points each
# (CE: 1.2, GCL: 1.0, GCL with cRT: 2.0), which is within the spread of a single run: five seeds do
# not say which method profits most.
#
# </details>

# %% [markdown]
# 2. Run with `imbalance_ratio=1`. Which of the methods should then be equal, and which still
#    differ, and why? Predict before you look.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# All cloud sizes are then 0 and every sampler draws all images alike: GCL differs from CE with
# mixup by its cosine classifier and scale only, and stage 2 has nothing to re-balance. It still
# trains, on another objective (with a margin and a focal factor) or from new weights, so the
# methods need not agree to the last digit. Over two seeds, with 1240 training images, CE reaches
# 99.2 %, the four others 99.4 and 99.5 %: equal within the spread, stage 2 included.
#
# </details>

# %% [markdown]
# 3. Compare the last epoch with `run.result["best_on_test"]`. By how much would choosing the epoch
#    on the test set have flattered each method?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# CE by 0.8 ± 0.7 points, with mixup by 1.4 ± 1.0, with mixup and cRT by 0.5 ± 0.3; GCL by 2.1 ± 1.0
# and GCL with cRT by 2.4 ± 1.5. Not all alike: in stage 1 the accuracy of GCL moves more from epoch
# to epoch, so it has more peaks to choose from; in stage 2 it hardly moves, but rises and falls
# again. Its lead over CE would have grown from 9.4 to 11.0 points.
#
# </details>

# %% [markdown]
# ## Summary
#
# With the same schedule in stage 1, GCL with cRT is far above cross-entropy on every seed, through
# the rare classes, and it pays with some of the accuracy of the frequent ones. The gain in top-1
# comes in the first stage. Its cause is not that the gradient of the head dies: with mixup, as
# published, the head gives most of the gradient to the end. Over CE with mixup and cRT the gain is
# three to five points at ratio 100, and how far it is above its spread changes with the noise and
# the epochs; at ratio 50 there is none.
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3.2, 3.3,
#   Table 1.
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition.* ICLR
#   2020.
# - H. Zhang et al. *mixup: Beyond Empirical Risk Minimization.* ICLR 2018.
