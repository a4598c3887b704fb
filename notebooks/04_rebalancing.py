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
# # 4. Re-balancing: is it the features, or only the classifier?
#
# Cross-entropy (CE) misses much of the tail. Change **one number** of its classifier and train
# nothing: **which classes come back, and which pay for it?**
#
# Afterwards you can say how often each sampler shows a tail image, what five repairs change in a
# classifier, and how much it flatters to choose a number on the test images. The lab
# ([third part](lab/3_judge.ipynb)) writes a sampler and a second stage by hand.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each variant, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0})
folder = project_path(p.figures)

# %% tags=["hide-input"]
from dataclasses import replace

from scipy.stats import spearmanr

from gcl_core.analysis.embedding import weight_norms
from gcl_core.course.notebook import (
    JUDGED,
    paired_difference,
    power,
    protocol,
    run_variants,
    show,
    table,
)
from gcl_core.data import samplers
from gcl_core.figures.charts import sweeps, values_by_class
from gcl_core.figures.looks import GROUP_LOOKS, METHOD_LOOKS, SAMPLER_LOOKS, Look
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import Series, over_seeds
from gcl_core.results.tables import mean_and_spread

keys = ["top1", "many", "medium", "few"]

# %%
dial = [0.0, 0.5, 1.0, 1.5, 2.0]
families = {"τ-normalisation": "ce_tau_norm", "post-hoc logit adjustment": "post_hoc"}
turned = run_variants(
    p, {f"{m} {tau}": (m, {"stage2_rebalance_tau": tau}) for m in families.values() for tau in dial}
)
along = {title: [turned[f"{m} {tau}"] for tau in dial] for title, m in families.items()}
show(
    sweeps(
        dial,
        "τ",
        {
            title: [
                over_seeds(look, [[at[i].result[g] for at in runs_at] for i in range(p.seeds)])
                for g, look in GROUP_LOOKS.items()
            ]
            for title, runs_at in along.items()
        },
    ),
    "04_dials",
    "Accuracy of many-, medium- and few-shot classes against tau, for tau-normalisation and for"
    " post-hoc logit adjustment of cross-entropy.",
    folder,
    about_runs(*turned.values()),
)

# %% [markdown]
# Left: each weight vector is divided by a power of its length, $w_j / \lVert w_j\rVert^{\tau}$, and
# the bias is dropped. Right: $\tau\log\pi_j$ is taken from the logits, with $\pi_j = n_j/\sum_i
# n_i$. Bands go from the lowest seed to the highest.

# %%
table(
    ["minus τ = 0", "top-1", *keys[1:]],
    [
        [f"{title}, τ = {tau:g}", *(paired_difference(of, runs_at[0], key) for key in keys)]
        for title, runs_at in along.items()
        for tau, of in zip(dial[1:], runs_at[1:], strict=True)
    ],
    f"{protocol(turned['post_hoc 0.0'])}. {JUDGED}.",
)

# %% [markdown]
# **What to notice.** The features are the same all along a curve, so that they held what the tail
# gains; the classifier did not use it. For the right panel theory names the best place beforehand:
# $\tau = 1$, if the test classes are balanced and the probabilities fit the training images. For
# the left one it has to be searched (exercise 2).

# %% [markdown]
# ## What a sampler shows
#
# Or train the classifier on other shares. A sampler gives each image of class $j$ a weight
# $\rho_j$, and draws the class with $P(j) = n_j\rho_j / \sum_i n_i\rho_i$.
#
# | sampler | $\rho_j$ |
# |---|---|
# | IB, every image alike | $1$ |
# | square root | $n_j^{-1/2}$ |
# | CB, every class alike | $n_j^{-1}$ |
# | EN, effective number (Cui et al.) | $(1-\beta)/(1-\beta^{n_j})$ |
# | CBEN (the paper, Eq. 13, 14) | the same with $\beta_j = a + b\,\delta_j$ |
# | reversed (BBN) | $n_j^{-2}$ |
#
# $\delta_j$ is the size of the class's cloud, from 0 to 1. The published code has $a = 0.9999$ and
# $b = 0.00001$.

# %%
data = turned["post_hoc 0.0"][0].dataset
labels = data.train.labels
drawn = {
    "IB": samplers.InstanceBalancedSampler(labels),
    "SQRT": samplers.SquareRootSampler(labels),
    "CB": samplers.ClassBalancedSampler(labels),
    "EN": samplers.EffectiveNumberSampler(labels),
    "CBEN": samplers.CBENSampler(labels),
    "REV": samplers.ReversedSampler(labels),
}
counts = drawn["IB"].class_counts
shares = {k: 100 * sampler.class_probabilities for k, sampler in drawn.items()}
repeats = {k: len(labels) / 100 * share / counts for k, share in shares.items()}

# %%
show(
    values_by_class(
        data,
        {
            title: [Series(SAMPLER_LOOKS[k], row.tolist()) for k, row in rows.items()]
            for title, rows in (
                ("Share of the images that are shown (%)", shares),
                ("How often an epoch shows one image", repeats),
            )
        },
        floor={"How often an epoch shows one image": 0.005},
    ),
    "04_samplers",
    "Share of each class among the images that six samplers show, and how often an epoch shows one"
    " image of each class.",
    folder,
    {"class_counts": data.class_counts},
)

# %% [markdown]
# **What to notice.** Far below $1/(1-\beta) = 10{,}000$ images, $(1-\beta^n)/(1-\beta)$ is $n$
# itself: there CB, EN and CBEN are one sampler. (Notebook 6 has values that tell them apart.) The
# lower panel is the price of equal classes: rare images come again and again. A whole network can
# learn them by heart; a classifier that is trained alone cannot spoil the features.

# %% [markdown]
# ## What it does to the weights
#
# In $z_j = w_j^\top f + b_j$ the gradient pulls $w_j$ towards the images of class $j$ and pushes it
# away from all others. *cRT* trains all $w_j$ anew on equal classes, *LWS* learns one factor for
# each class, τ-normalisation makes all lengths equal at $\tau = 1$. *NCM* puts the mean feature of
# the class in the place of $w_j$.

# %%
methods = ["ce", "ce_crt", "ce_lws", "ce_tau_norm", "ce_ncm", "post_hoc", "gcl", "gcl_crt"]
trained = run_variants(p, {method: (method, {}) for method in methods})

# %%
looks = {m: METHOD_LOOKS[m] for m in ("ce", "ce_crt", "ce_lws")}
looks["ce_lws"] = replace(looks["ce_lws"], colour="#5D3A9B")  # two of one colour would be too many
lengths = {m: [n / n.mean() for n in map(weight_norms, trained[m])] for m in looks}
equal = Series(Look("τ-norm., τ = 1", "#8A8A8A", "--"), [1.0] * data.num_classes)
show(
    values_by_class(
        data,
        {
            "Length of the weight vector, relative to the mean": [
                *(over_seeds(looks[m], [n.tolist() for n in rows]) for m, rows in lengths.items()),
                equal,
            ]
        },
    ),
    "04_norms",
    "Length of the classifier's weight vector of each class, relative to their mean, after stage 1"
    " and after three re-balancings.",
    folder,
    about_runs(*(trained[m] for m in looks)),
)

# %%
table(
    ["", "rank correlation of images and length", "longest over shortest"],
    [
        [
            looks[m].label,
            mean_and_spread([spearmanr(data.class_counts, n).statistic for n in rows], 2),
            mean_and_spread([float(n.max() / n.min()) for n in rows]),
        ]
        for m, rows in lengths.items()
    ],
    protocol(trained["ce"]),
)

# %% [markdown]
# A cosine classifier, which GCL has, divides by $\lVert w_j\rVert$ anyway: only the *directions* of
# its weights are left to repair.

# %% [markdown]
# ## What it does to the accuracy

# %%
stage1 = {m: trained["gcl" if m.startswith("gcl") else "ce"] for m in methods}
pairs = [(trained[m], stage1[m]) for m in methods]
rows = [
    [METHOD_LOOKS[m].label]
    + [mean_and_spread([run.result[key] for run in trained[m]]) for key in keys]
    + [paired_difference(trained[m], stage1[m], key) for key in ("top1", "few")]
    for m in methods
]
table(
    ["method", "top-1 (%)", *keys[1:], "top-1 − its stage 1", "few − its stage 1"],
    rows,
    f"{protocol(trained['ce_crt'])}. {JUDGED}. Found four times in five: "
    f"{power('top-1', pairs, 'top1')}, {power('few', pairs, 'few')}.",
)

# %% [markdown]
# Does a repair that trains beat one that only calculates? Does it give the tail more than it takes
# from the others? A difference that is not bold may still be there, if it is smaller than what
# would be found.

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. *Predict, then count.* How often does an epoch of CB show one image of a class with $n_j$
#    images, in terms of $N$, $C$ and $n_j$? Check the head and the rarest class.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $N P(j)/n_j = N/(C\,n_j)$: less than once for the head, many times for the rarest class.
#
# </details>

# %% tags=["solution", "hide-cell"]
for what, n in (("head", counts.max()), ("rarest", counts.min())):
    shown = repeats["CB"][counts == n][0]
    print(
        f"{what}: {len(labels) / (data.num_classes * n):.3g} by formula, {shown:.3g} by the sampler"
    )

# %% [markdown]
# 2. *How much does choosing on the test set flatter?* For each seed take the best of the five
#    $\tau$ by its own test accuracy, then by the mean over the *other* seeds.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# By the difference of the two columns. It is small where one number is chosen on a smooth curve,
# and large where a method has many numbers to choose.
#
# </details>

# %% tags=["solution", "hide-cell"]
rows = []
for title, runs_at in along.items():
    accuracy = [[run.result["top1"] for run in of] for of in runs_at]
    own, others = [], []
    for i in range(p.seeds):
        elsewhere = [sum(of) - of[i] for of in accuracy]
        own.append(max(of[i] for of in accuracy))
        others.append(accuracy[elsewhere.index(max(elsewhere))][i])
    rows.append([title, mean_and_spread(own), mean_and_spread(others)])
table(["top-1 (%)", "τ by the seed's own test images", "by those of the others"], rows)

# %% [markdown]
# 3. `ce_crt` starts the classifier from new weights. Start from those of stage 1
#    (`stage2_rebalance_fresh_head=False`): do the lengths come out flat as well, and does the
#    accuracy suffer if not? Are unequal lengths the disease, or a symptom?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# If its lengths stay unequal and its accuracy does not suffer, they are a symptom.
#
# </details>

# %% tags=["solution", "hide-cell"]
warm = run_variants(p, {"warm": ("ce_crt", {"stage2_rebalance_fresh_head": False})})["warm"]
ratio = [float(n.max() / n.min()) for n in map(weight_norms, warm)]
gain = paired_difference(warm, trained["ce_crt"])
table(
    ["cRT from", "longest over shortest", "top-1 − from new weights"],
    [["the weights of stage 1", mean_and_spread(ratio), gain]],
)

# %% [markdown]
# ## Summary
#
# A second stage leaves the features alone and changes which classes are answered: by training on
# equal classes, by scaling, or by arithmetic. A sampler decides how often a class is seen, and the
# lengths of the weights show that. How far one goes can matter more than by which way.

# %% [markdown]
# ## References
#
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition.* ICLR
#   2020.
# - Y. Cui et al. *Class-Balanced Loss Based on Effective Number of Samples.* CVPR 2019.
# - A. Menon et al. *Long-tail Learning via Logit Adjustment.* ICLR 2021.
# - B. Zhou et al. *BBN.* CVPR 2020.
# - M. Li et al. *GCL.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3.3.
