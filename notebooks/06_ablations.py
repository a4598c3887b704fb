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
# # 6. Ablations: which choices of GCL matter?
#
# Tables 3, 4 and 5 of the paper change one part of GCL with cRT at a time: how the cloud grows with
# rarity, how stage 2 samples images, and how it re-balances the classifier. The paper reports one
# number for each, from CIFAR-10-LT at ratio 100. Here the same variants are run on several seeds,
# so that a difference can be held against the spread that the seed alone makes.
#
# Afterwards you can say which of the differences in the paper's tables are of a size that a single
# run could show, and which would need many.

# %% [markdown]
# ## Parameters
#
# With the defaults the three tables take about a minute on two cores, after notebook 3 has made the
# runs that they share. The column *paper* is always quoted from the paper and never recomputed:
# other images, another network, one run.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each variant, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0})
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here. `ablation_table` writes the three tables in the paper's form.

# %%
from gcl_core import (
    CBENSampler,
    ClassBalancedSampler,
    EffectiveNumberSampler,
    InstanceBalancedSampler,
    cloud_sizes,
)
from gcl_core.figures import about_runs, dots
from gcl_core.notebook import (
    ablation_table,
    run_variants,
    show,
    table,
)

# %% [markdown]
# ## Table 3: how the cloud grows towards the tail
#
# All strategies give 0 to the most frequent class and, after division by the maximum, 1 to the
# rarest. They differ in between. The expressions in the paper's table are not legible in our copy.
# The logarithm is Eq. 9 and the published code; the two powers follow from their name; **the cosine
# is our reconstruction** from "cosine form" and "zero for the most frequent class". Each strategy
# is used in both stages, as the code would.

# %%
third, quarter = 1 / 3, 1 / 4
strategies = {
    "cos.": {"strategy": "cosine"},
    "pow. diff. (e = 1/3)": {"strategy": "power", "exponent": third},
    "pow. diff. (e = 1/4)": {"strategy": "power", "exponent": quarter},
    "log. diff.": {},
}
variants = {
    name: ("gcl_crt", changes | {f"stage2_{key}": value for key, value in changes.items()})
    for name, changes in strategies.items()
}
table3 = run_variants(p, variants)
data = table3["log. diff."][0].dataset
print(data)

# %%
sizes = {name: cloud_sizes(data.class_counts, **changes) for name, changes in strategies.items()}
shown = range(0, data.num_classes, max(1, data.num_classes // 10))
rows = [[name, *(f"{size[j]:.2f}" for j in shown)] for name, size in sizes.items()]
table(["cloud size of class", *map(str, shown)], rows, "Eq. 9 and Table 3, largest = 1")

# %% [markdown]
# The cosine gives nearly full clouds from the third class on, and so leaves the rare classes alike;
# the powers lie between it and the logarithm, to which $(n_{\max}^e - n_j^e)/e$ tends for $e \to
# 0$.

# %%
paper3 = {
    "cos.": 79.21,
    "pow. diff. (e = 1/3)": 80.80,
    "pow. diff. (e = 1/4)": 82.31,
    "log. diff.": 82.68,
}
ablation_table("cloud size", table3, paper3, reference="log. diff.")

# %% [markdown]
# **What to notice.** The cosine is last, as in the paper, and it has the lowest few-shot accuracy;
# still every difference in the last column is smaller than its own spread. The two powers and the
# logarithm cannot be told apart: when we ran the table again with other noise in the clouds and all
# else the same, their means changed places. The paper's gap between `log. diff.` and `e = 1/4` is
# 0.37 points, from numbers without a spread. The logarithm is a fine choice here; that it is the
# best one is not shown.
#
# ## Table 4: how stage 2 samples
#
# The captions of Tables 4 and 5 are lost in our copy; the text tells which is which. The samplers
# (IB: every image alike; CB: every class alike; EN: by effective number; CBEN: the same with a
# $\beta_j$ that grows with the cloud) choose how often a class is seen. **The paper's values $a$
# and $b$ of CBEN are not known**; the published code's are 0.9999 and 0.00001. With them, and with
# these counts, this is what the samplers do:

# %%
labels = data.train_labels
samplers = {
    "IB": InstanceBalancedSampler(labels),
    "CB": ClassBalancedSampler(labels),
    "EN": EffectiveNumberSampler(labels, 0.9999),
    "CBEN": CBENSampler(labels, 0.9999, 1e-5),
}
rows = [
    [name, *(f"{100 * sampler.class_probabilities[j]:.2f}" for j in shown)]
    for name, sampler in samplers.items()
]
table(
    ["% of the images drawn, class", *map(str, shown)], rows, "class probabilities of each sampler"
)

# %%
variants = {
    "IB + cRT": ("gcl_crt", {"stage2_sampler": "instance"}),
    "CB + cRT": ("gcl_crt", {"stage2_sampler": "class"}),
    "EN + cRT": ("gcl_crt", {"stage2_sampler": "effective"}),
    "CBEN + cRT": ("gcl_crt", {}),
}
table4 = run_variants(p, variants)
paper4 = {"IB + cRT": 80.41, "CB + cRT": 82.43, "EN + cRT": 82.47, "CBEN + cRT": 82.68}
ablation_table("sampler", table4, paper4, reference="CBEN + cRT")

# %% [markdown]
# **What to notice.** Re-training on instance-balanced batches (IB) leaves the few-shot classes far
# behind the others, and is a little below no re-training at all (Table 5 below), as in the paper.
# In the top-1 its distance is within the spread (with other noise in the clouds it was −3.6 ± 3.0,
# just beyond it). CB, EN and CBEN end at the same accuracy. They have to: their class probabilities
# differ by 0.05 points at most. At the published $a$ and $b$ the paper's gain of CBEN over CB (0.25
# points) can hardly come from how often a class is drawn; either its $a$ and $b$ are others, or it
# is the luck of a run.
#
# ## Table 5: how stage 2 re-balances
#
# cRT trains all weights of the classifier, LWS one scale for each class, and $\tau$-normalisation
# nothing: it divides each weight vector by its norm to the power $\tau$. **For a cosine classifier
# $\tau = 1$ changes nothing at all**: its weight vectors count by their direction only. The paper's
# row (82.16 against 80.52 without re-training) can therefore not be exactly that; its $\tau$ and
# how it was applied are not in the text, nor in the published code. The row is kept to show it.

# %%
variants = {
    "w/o re-training": ("gcl", {}),
    "CBEN + LWS": ("gcl_crt", {"stage2_rebalance": "lws"}),
    "CBEN + τ-norm. (τ = 1)": ("gcl_crt", {"stage2_rebalance": "tau_norm"}),
    "CBEN + cRT": ("gcl_crt", {}),
}
table5 = run_variants(p, variants)
paper5 = dict(zip(variants, (80.52, 82.25, 82.16, 82.68), strict=True))
ablation_table("re-balancing", table5, paper5, reference="CBEN + cRT")

# %% [markdown]
# **What to notice.** The row of τ-normalisation equals the one without re-training in every digit,
# as it must. Re-training, of either kind, reliably gives the few-shot classes more than ten points
# and takes some from all others. What remains in the top-1 is within the spread here; with other
# noise in the clouds cRT was 2.7 ± 2.0 above no re-training. So re-training does what it is for;
# which kind is best, and what it is worth over all classes, is not settled by these seeds.
#
# ## All variants, every seed

# %%
tables = {
    "Table 3: cloud size": table3,
    "Table 4: sampler": table4,
    "Table 5: re-balancing": table5,
}
show(
    dots(
        {
            title: {name: [run.result["top1"] for run in rs] for name, rs in by_name.items()}
            for title, by_name in tables.items()
        },
        "test top-1 (%); bars: mean ± standard deviation, dots: single seeds",
    ),
    "06_ablations",
    "Top-1 accuracy of each variant of Tables 3 to 5, each seed as a dot, with mean and spread.",
    folder,
    about_runs(*(runs for by_name in tables.values() for runs in by_name.values())),
)

# %% [markdown]
# **What to notice.** The dots of one variant cover several points. Much of that is the draw of the
# images, which all variants share at a seed, so the paired differences in the tables are the
# sharper comparison; wherever stage 1 or the kind of re-balancing differs, they too have a standard
# deviation of two to six points. Four of the nine differences to the full method in the paper's
# tables are below half a point. On data as small as these a table of single runs would be a table
# of luck; how large the spread is on CIFAR-10-LT is for recorded runs to say, not for this
# notebook.
#
# ## Exercises
#
# 1. How many seeds would a difference of 0.37 points (`log. diff.` against `e = 1/4` in the paper)
#    need, to be seen against the spread of the paired differences here? The error of a mean of $n$
#    seeds falls like $1/\sqrt n$.
# 2. Choose $a$ and $b$ such that CBEN differs from CB on these counts (try `stage2_sampler_a=0.9`,
#    `stage2_sampler_b=0.09`). Does the accuracy follow?
# 3. Give τ-normalisation $\tau = 0.5$ (`stage2_rebalance_tau`). What do the norms of the anchors
#    then do, and why can they be of any size in a cosine classifier?
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 4.5, Tables 3
#   to 5.
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition.* ICLR
#   2020.
# - Y. Cui et al. *Class-Balanced Loss Based on Effective Number of Samples.* CVPR 2019.
