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
# The paper trains twice: all weights with GCL, then the classifier alone on re-sampled images
# (cRT). **Which of the two finds the rare classes, and what do the frequent ones pay?**
#
# Afterwards you can say how much of a gain comes from which part, how sure that is, and what an
# answer is worth.

# %% [markdown]
# ## Parameters
#
# For larger images give `dataset="cifar10"` or `dataset="folder:PATH"`: hours on a CPU, unless
# `preset="smoke"`.

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each method, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0})
folder = project_path(p.figures)

# %% tags=["hide-input"]
import torch

from gcl_core.course.notebook import (
    JUDGED,
    paired_difference,
    power,
    protocol,
    run_variants,
    show,
    table,
)
from gcl_core.figures.charts import confusion_maps, training_curves, values_by_class
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import curve, over_seeds
from gcl_core.results.tables import mean_and_spread

# %%
methods = ["ce", "ce_mixup", "ce_mixup_crt", "gcl", "gcl_crt"]
shown = ["ce", "ce_mixup_crt", "gcl_crt"]
trained = run_variants(p, {method: (method, {}) for method in methods})
data = trained["ce"][0].dataset
recalls = [over_seeds(METHOD_LOOKS[m], [r.result["per_class"] for r in trained[m]]) for m in shown]
show(
    values_by_class(data, {"Test accuracy by class (%)": recalls}, percent=True),
    "03_accuracy_by_class",
    "Test accuracy of each class, head to tail, for CE, CE with mixup and cRT, and GCL with cRT.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# Lines are the mean of the seeds; bands go from the lowest to the highest. On digits a seed also
# draws the images.

# %% [markdown]
# ## Two stages
#
# **Stage 1** sees every image once an epoch and trains everything. CE has a linear classifier; GCL
# a cosine one, whose logits get a cloud in training (Eq. 11, notebook 2):
#
# $$z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|).$$
#
# **mixup** blends two images and their labels (Zhang et al.). The published GCL has it in both
# stages.

# %% [markdown]
# **Stage 2** freezes the features and trains the classifier on images drawn so that every class
# comes about equally often. `ce_mixup_crt` starts a new classifier (Kang et al.); `gcl_crt` goes on
# with the old one, as the published code does and the paper does not say (notebook 6 has both).

# %%
titles = {"train_loss": "Training loss", "top1": "Top-1 (%)", "few": "Few-shot classes (%)"}
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
# Accuracies are those of the test images, without clouds. No epoch is chosen by them: every number
# is of the last one. Losses of different objectives cannot be compared.

# %% [markdown]
# ## What each part adds

# %%
keys = ["top1", "many", "medium", "few"]
rows = [
    [METHOD_LOOKS[m].label, *(mean_and_spread([r.result[key] for r in trained[m]]) for key in keys)]
    for m in methods
]
header = ["method", "top-1 (%)", "many", "medium", "few"]
table(header, rows, f"{protocol(trained['gcl_crt'])}; methods of one stage end after the first.")

# %%
steps = [
    ("ce_mixup", "ce", "mixup"),
    ("ce_mixup_crt", "ce_mixup", "stage 2, after CE and mixup"),
    ("gcl", "ce_mixup", "cosine classifier and cloud"),
    ("gcl_crt", "gcl", "stage 2, after GCL"),
    ("gcl_crt", "ce", "**all of it**, over CE"),
    ("gcl_crt", "ce_mixup_crt", "**GCL's own part**, over CE + mixup + cRT"),
]
rows = [
    [what, *(paired_difference(trained[m], trained[base], key) for key in keys)]
    for m, base, what in steps
]
pairs = [(trained[m], trained[base]) for m, base, _ in steps]
found = ", ".join(power(name, pairs, key) for name, key in (("top-1", "top1"), ("few", "few")))
header = ["points", "top-1", "many", "medium", "few"]
table(header, rows, f"{JUDGED}. Found four times in five: {found}.")

# %% [markdown]
# The last row is the paper's claim (Table 1: 82.68 against 79.15 on CIFAR-10-LT). Six rows of four
# are many chances for a false alarm: plan your comparison before you look.

# %% [markdown]
# ## Where the lost images go

# %%
counts = torch.tensor(data.class_counts, dtype=torch.float64)
confusion = {m: sum(torch.tensor(r.result["confusion"]) for r in trained[m]) for m in methods}
show(
    confusion_maps(data, {METHOD_LOOKS[m].label: confusion[m].tolist() for m in ("ce", "gcl_crt")}),
    "03_confusion",
    "Confusion matrices of CE and of GCL with cRT over the test images of all seeds.",
    folder,
    about_runs(trained["ce"], trained["gcl_crt"]),
)

# %% [markdown]
# **What to notice.** Rows are true classes, columns answers. What a re-balanced method recovers
# below the diagonal it pays for above it: frequent images that are taken for rare ones. Whoever
# gets the answer sees the price in its *precision*, and that depends on how often each class comes.

# %%
few = data.groups["few"]
rarest = min(few, key=lambda j: data.class_counts[j], default=0)
rows = []
for m in methods:
    rates = confusion[m].double() / confusion[m].sum(1, keepdim=True)
    cells = []
    for images in (torch.ones_like(counts), counts):  # of each class
        answers = images[:, None] * rates
        precision = answers.diagonal() / answers.sum(0)
        cells += [precision[few].nanmean(), precision[rarest]]
    texts = ("never said" if cell.isnan() else f"{100 * float(cell):.1f}" for cell in cells)
    rows.append([METHOD_LOOKS[m].label, *texts])
name = data.class_names[rarest]
header = ["precision (%)", "balanced: few", f"“{name}”", "training mix: few", f"“{name}”"]
table(header, rows, "All seeds together; “training mix”: classes come as in the training images.")

# %% [markdown]
# Where a number is below 50, an answer with a rare class's name is wrong more often than not. Top-1
# on balanced images does not say so.

# %% [markdown]
# ## Another tail
#
# All this rests on one order of the classes. The reversed order has the same counts.

# %%
orders = {"this order": (trained["gcl_crt"], trained["ce"])}
if p.imbalance_ratio:  # then any class has as many images as the head needs
    turned = {"class_counts": tuple(data.class_counts[::-1]), "imbalance_ratio": None}
    others = run_variants(p, {m: (m, turned) for m in ("gcl_crt", "ce")})
    orders["reversed"] = (others["gcl_crt"], others["ce"])
rows = [[name, *(paired_difference(*pair, key) for key in keys)] for name, pair in orders.items()]
table(["GCL + cRT − CE, points", "top-1", "many", "medium", "few"], rows, f"{JUDGED}.")

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. Run with `preset="official"` (200 + 30 epochs), or with `imbalance_ratio=50`. Which rows of the
#    second table keep their sign, and which their bold?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# [The study](../results/study.md) has the levels at ratio 50 on digits. A row that keeps its sign
# and loses its bold is not refuted: read beside it how large a difference would have been found.
#
# </details>

# %% [markdown]
# 2. Run with `imbalance_ratio=1`. Which methods should be equal, and which still differ? Predict
#    first.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# All cloud sizes are 0 and every sampler draws alike: GCL differs from CE with mixup by its cosine
# classifier and scale, and stage 2 has nothing to re-balance.
#
# </details>

# %% [markdown]
# 3. By how much would choosing the epoch on the test set (`run.result["best_on_test"]`) have
#    flattered each method?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell below has it. The more an accuracy jumps from epoch to epoch, the more its best epoch
# flatters it.
#
# </details>

# %% tags=["solution", "hide-cell"]
rows = [
    [
        METHOD_LOOKS[m].label,
        mean_and_spread([r.result["best_on_test"]["top1"] - r.result["top1"] for r in trained[m]]),
    ]
    for m in methods
]
table(["best on test − last epoch", "points"], rows)

# %% [markdown]
# ## Summary
#
# The second table says which part adds what, with its interval; the third how often the name of a
# rare class is right; the last whether another tail agrees. The paper explains the gain by
# saturation: notebook 1 measures that on the images that are trained on.

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3, Table 1.
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition.* ICLR
#   2020.
# - H. Zhang et al. *mixup: Beyond Empirical Risk Minimization.* ICLR 2018.
