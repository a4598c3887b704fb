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
# Tables 3, 4 and 5 of the paper change one part of GCL at a time, and print one number for each.
# **Which of these differences could a single run show?**
#
# Afterwards you can tell a difference from luck, and say which rows of the paper's tables need no
# experiment at all.

# %% [markdown]
# ## Parameters
#
# Variants beyond the paper have `more_seeds` seeds. *Italics* are quoted from the paper and never
# recomputed: other images, another network, one run. **Bold with seeds in brackets** is from
# recorded runs on CIFAR-10-LT.

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each variant of the paper's tables, from seed 0 on
more_seeds: int = 3  # runs of each variant beyond the paper's tables
runs: str = "runs"  # folder of all runs, in the project unless absolute
records: str = "results"  # folder of the run records, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "more_seeds": 1, "imbalance_ratio": 0, "workers": 0}
)
folder = project_path(p.figures)

# %% tags=["hide-input"]
from numpy import nan
from scipy.stats import nct

from gcl_core import (
    CBENSampler,
    ClassBalancedSampler,
    EffectiveNumberSampler,
    long_tailed_counts,
)
from gcl_core.analysis.embedding import weight_norms
from gcl_core.analysis.gaussian import matched_tau
from gcl_core.analysis.intervals import t_factor
from gcl_core.course.notebook import ablation_table, run_variants, show, table_variants
from gcl_core.data.samplers import cben_shares
from gcl_core.figures.charts import paired_gains, sampling_shares
from gcl_core.figures.saving import about_runs
from gcl_core.results.agreement import load_measured
from gcl_core.results.printed import ABLATION, BEYOND, paper_rows
from gcl_core.results.tables import differences

recorded = load_measured(project_path(p.records))

# %%
full = {3: "log. diff.", 4: "CBEN + cRT", 5: "CBEN + cRT"}
trained = {number: run_variants(p, table_variants(number)) for number in full}
gains, printed = {}, {}
for number, reference in full.items():
    title = f"Table {number}, minus {reference}"
    quoted = {row.name: row.values[ABLATION] for row in paper_rows(number)}
    gains[title], printed[title] = {}, {}
    for name, of in trained[number].items():
        if name != reference:
            pairs = [
                (a.result, b.result) for a, b in zip(of, trained[number][reference], strict=True)
            ]
            gains[title][name] = differences(pairs, "top1")
            printed[title][name] = quoted[name] - quoted[reference]

# %%
show(
    paired_gains(gains, "top-1, points; hollow: the paper's, on CIFAR-10-LT", printed),
    "06_ablations",
    "Difference in top-1 of each variant of Tables 3 to 5 to the full method, each seed as a dot,"
    " with mean and t interval, and the paper's difference as a hollow circle.",
    folder,
    about_runs(*(of for by_name in trained.values() for of in by_name.values())),
)

# %% [markdown]
# A grey dot is what one pair of runs shows; all dots of a row are the same two variants on other
# seeds. The diamond is their mean, with its 95 % t interval. A hollow circle is the difference that
# the paper prints: a single pair, on other data, whose own spread nobody knows. Where our dots
# scatter over both sides of the line, one pair says nothing.

# %% [markdown]
# ## Table 3: how the cloud grows towards the tail
#
# All strategies give 0 to the most frequent class and, divided by their maximum, 1 to the rarest;
# [notebook 2](02_gaussian_cloud.ipynb) draws them. The expressions in the paper's table are not
# legible in our copy. The logarithm is Eq. 9 and the published code, the powers follow from their
# name; **the cosine is our reconstruction**.
#
# $$\delta_j^{\log} = \log n_{\max} - \log n_j, \quad \delta_j^{\mathrm{pow}} = n_{\max}^e - n_j^e,
# \quad \delta_j^{\cos} = \cos\Bigl(\frac{\pi}{2}\,\frac{n_j}{n_{\max}}\Bigr).$$

# %%
ablation_table("cloud size", trained[3], paper=3, records=recorded, reference=full[3])

# %% [markdown]
# **What to notice.** The strategies differ in the middle classes: the cosine gives them most, the
# logarithm least. The powers lie between, and $(n_{\max}^e - n_j^e)/e$ tends to the logarithm for
# $e \to 0$. Is there a bold difference? If not: would these seeds have found one as large as the
# paper's?

# %% [markdown]
# ## Table 4: how stage 2 samples
#
# The captions of Tables 4 and 5 are lost in our copy; order and contents tell which is which. IB
# draws images alike, CB classes; EN and CBEN draw by effective numbers (notebook 4). **The paper's
# $a$ and $b$ of CBEN are not known**; the published code has 0.9999 and 0.00001.

# %%
data = trained[4]["CBEN + cRT"][0].dataset
labels = data.train.labels
share = {
    "CB": ClassBalancedSampler(labels).class_probabilities,
    "EN": EffectiveNumberSampler(labels, 0.9999).class_probabilities,
    "CBEN": CBENSampler(labels, 0.9999, 1e-5).class_probabilities,
}
for one, other in (("CBEN", "EN"), ("EN", "CB")):
    gap = 100 * float((share[one] - share[other]).abs().max())
    print(f"{one} and {other} draw no class's share further apart than {gap:.4f} % of the images")
ablation_table("sampler", trained[4], paper=4, records=recorded, reference=full[4])

# %% [markdown]
# **What to notice.** At the published values CBEN is EN. As the runs share their random numbers,
# nearly the same images are drawn. So what the paper gains by CBEN over EN can hardly come from how
# often a class is drawn: its $a$ and $b$ are others, or it is the luck of a run. IB does draw
# differently: compare the few-shot column.

# %% [markdown]
# ## Table 5: how stage 2 re-balances
#
# cRT trains all weights, LWS one factor for each class, and τ-normalisation divides each weight
# vector by its length to the power $\tau$, which leaves $\lVert w_j\rVert^{1-\tau}\cos\theta_j$.
# **For a cosine classifier $\tau = 1$ changes nothing at all.** The paper's row cannot be exactly
# that; its $\tau$ is not in the text, nor in the published code.

# %%
ablation_table("re-balancing", trained[5], paper=5, records=recorded, reference=full[5])

# %% [markdown]
# **What to notice.** The rows `w/o RT` and `τ-nor.` are equal in every digit, as they must be.
# Re-training is meant to move accuracy to the few-shot classes: the last column has its effect, the
# one before it what is left over all classes.

# %% [markdown]
# ## Beyond the paper: what the code adds to stage 2
#
# The published code has mixup and a focal factor in stage 2, and goes on with the classifier of
# stage 1. The paper does not say in which stage it has mixup, and follows Kang et al., which means
# a new classifier. Its first author doubts mixup in stage 2 (issue 2 of the published code). A new
# classifier at the code's small rate (0.002) has little time to become one; BagofTricks-LT uses
# 0.1.

# %%
published = "as published"
second_stage = {
    published: ("gcl_crt", {}),
    "no mixup in stage 2": ("gcl_crt", {"stage2_mixup_alpha": 0.0}),
    "new classifier": ("gcl_crt", {"stage2_rebalance_fresh_head": True}),
    "new classifier, rate 0.1": (
        "gcl_crt",
        {"stage2_rebalance_fresh_head": True, "stage2_lr": 0.1},
    ),
    "batch norm goes on": ("gcl_crt", {"stage2_rebalance_batch_norm": "shifted"}),
}
if trained[5]["w/o RT"][0].settings.on_features:  # which no batch normalisation comes after
    del second_stage["batch norm goes on"]
extra = run_variants(p, second_stage, seeds=p.more_seeds)
ablation_table("stage 2", extra, reference=published)

# %% [markdown]
# **What to notice.** What a new classifier comes to depends on the rate: compare the two rows of a
# new one. With three seeds a t interval reaches 4.3 standard errors to either side,
# with two 12.7. So few seeds tell only large differences from luck.

# %% [markdown]
# ## How large the cloud is: $k$ and $s$
#
# $z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon|)$ has two knobs that the paper's text
# leaves open. $k$ is 0.5 in the code, and 1 in the formula without it. $s$ (30, and 20 in stage 2)
# multiplies cosines and cloud alike: an inverse temperature. A user with two classes reports that a
# smaller $s$ made it work (issue 3 of the code).

# %%
cloud = {
    published: ("gcl_crt", {}),
    "k = 0": ("gcl_crt", {"noise_multiplier": 0.0, "stage2_noise_multiplier": 0.0}),
    "s = 60 and 40": ("gcl_crt", {"scale": 60.0, "stage2_scale": 40.0}),
}
extra = run_variants(p, cloud, seeds=p.more_seeds)
ablation_table("cloud", extra, reference=published)

# %% [markdown]
# ## A cloud, or only a margin?
#
# $|\varepsilon|$ has a mean, $\mathbb E|\varepsilon| = 0.2657$ at $\sigma = 1/3$. With logarithmic
# sizes the *mean* clouded logit is, but for a constant, $s \cos\theta_j + \tau \log \pi_j$ with
#
# $$\tau = \frac{s\,k\,\mathbb E|\varepsilon|}{\log(n_{\max}/n_{\min})},$$
#
# which is logit adjustment (Menon et al.) on cosines. So there is a fair opponent without any
# randomness: the same classifier, mixup and scale, and a margin of the same mean. What remains
# between the two is what the noise itself does.

# %%
tau = matched_tau(data.class_counts)
margin = {"objective": "logit_adjustment", "scale": 30.0, "tau": tau}
alone = run_variants(p, {"cloud": ("gcl", {}), "margin": ("gcl", margin)})
print(f"tau = {tau:.3f}")
ablation_table("stage 1 alone", alone, paper=BEYOND, records=recorded, reference="cloud")

# %%
both = {"cloud + stage 2": ("gcl_crt", {}), "margin + stage 2": ("gcl_crt", margin)}
both = run_variants(p, both)
ablation_table("both", both, paper=BEYOND, records=recorded, reference="cloud + stage 2")

# %% [markdown]
# **What to notice.** A plus means that the margin is better. That an interval has zero in it does
# not make the two equal: a difference below the one that would be found stays open. But whoever
# says that the *randomness* helps has to show this comparison, and the paper has no such row.

# %% [markdown]
# ## $a$ and $b$ of CBEN: where it parts from EN
#
# No training is needed to see what they do: $P_j \propto n_j\,(1-\beta_j)/(1-\beta_j^{n_j})$ with
# $\beta_j = a + b\,\delta_j$ (Eq. 13, 14). Below, the shares on CIFAR-10-LT at ratio 100, whatever
# data this notebook runs on. With $b = 0$ the rule is EN; $b$ has to stay below $1 - a$.

# %%
counts = long_tailed_counts(5000, 10, 100)
pairs = {
    "EN 0.9999": (0.9999, 0.0),
    "CBEN 0.9999, 0.00001 (code)": (0.9999, 1e-5),
    "CBEN 0.999, 0.0009": (0.999, 9e-4),
    "CBEN 0.9, 0.09": (0.9, 0.09),
}
drawn = {name: 100 * cben_shares(counts, *pair) for name, pair in pairs.items()}
steps = [10 ** (i / 10 - 6) for i in range(60)]
apart = {}  # how much a share differs from that of b = 0 at most (%); NaN where a + b is no beta
for a in (0.9999, 0.999, 0.9):
    plain = cben_shares(counts, a, 0.0)
    apart[f"a = {a}"] = [
        100 * float((cben_shares(counts, a, b) / plain - 1).abs().max()) if a + b < 1 else nan
        for b in steps
    ]
show(
    sampling_shares(counts, drawn, steps, apart),
    "06_cben",
    "Share of each class in what EN and CBEN draw for some a and b, and how much a share changes"
    " at most as b grows from 0, for three values of a.",
    folder,
    {"class_counts": counts},
)

# %% [markdown]
# **What to notice.** At the code's $a$ no $b$ that is allowed makes CBEN anything but EN: its line
# ends below one percent. Only a smaller $a$ leaves room, and that moves EN itself, from equal
# classes towards equal images; $b$ pushes further the same way. The paper introduces CBEN for just
# this, to avoid excessive training of the tail; how far its own values go is not known.

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. How many seeds would the paper's gap between `log. diff.` and `e:1/4` need, to be found four
#    times in five, against the spread of the paired differences here?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The power of a paired t test is that of the noncentral t distribution. Count upwards.
#
# </details>

# %% tags=["solution", "hide-cell"]
(title, *_), name = gains, "pow. diff. (e:1/4)"
gap, values = abs(printed[title][name]), gains[title][name]
middle = sum(values) / len(values)
spread = (sum((x - middle) ** 2 for x in values) / max(1, len(values) - 1)) ** 0.5
for deviation in (spread, 0.5):
    n = 2
    while deviation and nct.sf(t_factor(n - 1), n - 1, gap / deviation * n**0.5) < 0.8:
        n += 1
    print(f"gap {gap:.2f}, deviation of a difference {deviation:.2f} points: {n} seeds")

# %% [markdown]
# 2. Choose $a$ and $b$ such that CBEN differs from CB on these counts, for example $a = 0.9$,
#    $b = 0.09$ (`stage2_sampler_a`, `stage2_sampler_b`). Does the accuracy follow, and for whom?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The draws lie between IB and CB then, and so may the accuracies: the head gets back what the tail
# gives.
#
# </details>

# %% tags=["solution", "hide-cell"]
changes = {"stage2_sampler_a": 0.9, "stage2_sampler_b": 0.09}
chosen = run_variants(p, {"a = 0.9, b = 0.09": ("gcl_crt", changes)})
ablation_table("sampler", {**chosen, full[4]: trained[4][full[4]]}, reference=full[4])

# %% [markdown]
# 3. Give τ-normalisation $\tau = 0.5$ (`stage2_rebalance="tau_norm"`, `stage2_rebalance_tau=0.5`).
#    What do the lengths of the weights then do, and why can they be anything in a cosine
#    classifier?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The outputs become $\lVert w_j\rVert^{1/2}\cos\theta_j$. The classifier never saw its lengths, so
# training left them where weight decay, the first draw and the gradient across the anchor took
# them. Letting them count can only add what they happen to hold.
#
# </details>

# %% tags=["solution", "hide-cell"]
half = ("gcl_crt", {"stage2_rebalance": "tau_norm", "stage2_rebalance_tau": 0.5})
chosen = run_variants(p, {"τ = 0.5": half})
for run in trained[5]["w/o RT"][:1]:
    print("lengths, head to tail:", [round(float(n), 2) for n in weight_norms(run)])
ablation_table("τ", {**chosen, "w/o RT": trained[5]["w/o RT"]}, reference="w/o RT")

# %% [markdown]
# ## Summary
#
# Two rows of the paper's tables need no experiment: CBEN with the published $a$ and $b$ is EN, and
# $\tau = 1$ does nothing to a cosine classifier. Of the others, a single run shows luck where the
# dots scatter over the line. Each table says which differences are clear, and how large one has to
# be to be found. The comparison that matters most, a cloud against a margin of its mean, is in none
# of the paper's tables.

# %% [markdown]
# ## References
#
# - M. Li et al. *GCL.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 4.5,
#   Tables 3 to 5.
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition.* ICLR
#   2020.
# - Y. Cui et al. *Class-Balanced Loss Based on Effective Number of Samples.* CVPR 2019.
# - A. K. Menon et al. *Long-tail Learning via Logit Adjustment.* ICLR 2021.
# - The published code, Keke921/GCLLoss on GitHub: its issues 2 (mixup, 200 epochs) and 3 (scale).
