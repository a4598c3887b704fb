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
# # 2. What is a Gaussian cloud?
#
# In training GCL lowers each logit by a random amount, its *cloud*. So the boundary between two
# classes is another line each time. **What is this random number, and what does its randomness do
# that a fixed margin would not?**
#
# Afterwards you can say which noise a cloud stands for and when that reading breaks down, why it
# has no sign, and which margin has the same mean. (The lab writes the loss itself:
# [step 10](lab/2_mend.ipynb).)

# %% [markdown]
# ## Parameters
#
# Only the last section trains networks.

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 3  # runs of GCL for the last section, from seed 0 on
sigma: float = 0.3333333333333333  # standard deviation of the noise; 1/3: the paper, Sec. 4.2
draws: int = 20000  # random vectors in each simulation
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0, "draws": 100, "sigma": 0.01}
)
folder = project_path(p.figures)

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown

from gcl_core import GCLLoss, cloud_sizes
from gcl_core.analysis import gaussian
from gcl_core.analysis.embedding import group_means
from gcl_core.analysis.saturation import (
    binary_gradient,
    cloud_reach,
    expected_binary_gradient,
    softmax_gradient,
    training_logits,
)
from gcl_core.course.interaction import Slider, explore
from gcl_core.course.notebook import protocol, run_variants, show, table
from gcl_core.figures import cloud as cloud_figures
from gcl_core.figures.charts import gradient_curves, values_by_class
from gcl_core.figures.looks import METHOD_LOOKS, Look
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import Series, over_seeds
from gcl_core.losses.priors import LogitAdjustedLoss
from gcl_core.results.tables import mean_and_spread

generator = torch.Generator().manual_seed(0)

# %%
explore(
    cloud_figures.circle,
    "02_circle",
    "Two anchors on the unit circle with the fan of training boundaries between the clean one and"
    " that of a full cloud; gradient of a tail image by direction, and by direction and noise.",
    folder,
    cloud_size=Slider("cloud size δ", 1.0, 0.0, 1.0, 0.05),
    noise_multiplier=Slider("noise multiplier k", 0.5, 0.0, 1.5, 0.05),
    scale=Slider("scale s", 30.0, 1.0, 60.0, 1.0),
)

# %% [markdown]
# The arrows are the *anchors* of head and tail: the classifier's weight vectors, 60 degrees off the
# axis between them. Only the tail has a cloud. In training the boundary lies where $2 \sin 60^\circ
# \sin\varphi = k\,\delta\,|\varepsilon|$, in another direction $\varphi$ for every draw: a fan. In
# a test there is no cloud, and the boundary is the axis. Training drives tail images beyond the
# fan, which leaves room for new ones inside it.

# %% [markdown]
# **Move** the sliders (in JupyterLab): $s$ only sharpens the gradient, $k\delta$ opens the fan.

# %% [markdown]
# ## The cloud in one line
#
# $$z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|), \quad (11) \qquad L = -\log
# \frac{e^{z_y^\delta}}{\sum_j e^{z_j^\delta}} \quad (12)$$
#
# with $\varepsilon_j \sim \mathcal N(0, \sigma^2)$ clamped to $[-1, 1]$, $\sigma = 1/3$ (Sec. 4.2),
# and sizes $\delta_j \propto \log n_{\max} - \log n_j$ (Eq. 9), the largest 1. The factor $k$ is in
# the published code (½ on CIFAR), not in the text.

# %%
counts, s, k = [500, 100, 20], 30.0, 0.5
cosine = 2 * torch.rand(4, 3, generator=generator) - 1
eps = (p.sigma * torch.randn(4, 3, generator=generator)).clamp(-1, 1)

clouded = s * (cosine - k * cloud_sizes(counts).float() * eps.abs())

theirs = GCLLoss(counts, scale=s, noise_multiplier=k).logits(cosine, eps)
print("gcl_core has the same:", torch.allclose(clouded, theirs, atol=1e-5))

# %% [markdown]
# The paper starts elsewhere, at noise on the *feature*, and comes here in four steps: one exact,
# one approximate, two decisions. (Our copy has lost its formulas; Eq. 9, 11 and 12 agree with the
# published code, the others are written from the sentences around them.)

# %% [markdown]
# ## Step 1: from the feature to the logit (exact)
#
# A feature $f \in \mathbb R^D$ has the logits $z_j = w_j^\top f$, with an *anchor* $w_j$ for each
# class. Noise on it moves them by the noise's projection on the anchor:
#
# $$f^\delta = f + \delta\,\varepsilon, \quad \varepsilon \sim \mathcal N(\mu, \Sigma) \quad (4)
# \qquad\qquad z_j^\delta = z_j + \delta\, w_j^\top \varepsilon. \quad (5)$$
#
# A projection of a Gaussian is Gaussian for *every* $\Sigma$. The paper's $\Sigma = \sigma^2 I$ is
# needed for something else: it gives all classes the same variance.

# %%
projections, true, wrong = {}, [], []
for D in (2, 64, 512):
    anchor = torch.nn.functional.normalize(torch.randn(D, generator=generator), dim=0)
    stretch = torch.linspace(0.5, 1.5, D)  # a covariance that is not a multiple of I
    for scales in (torch.ones(D), stretch):
        noise = p.sigma * scales * torch.randn(p.draws, D, generator=generator)
        projected, spread = noise @ anchor, p.sigma * float((scales * anchor).norm())
        projections.setdefault(f"D = {D}", projected)
        true.append(gaussian.gaussian_test(projected, 0.0, spread))
    wrong.append(gaussian.gaussian_test(projected, 0.0, p.sigma).variance)

# %%
show(
    cloud_figures.projection_histograms(projections, 0.0, p.sigma),
    "02_projections",
    "Histograms of Gaussian noise in 2, 64 and 512 dimensions projected on one direction; all three"
    " follow the same normal density.",
    folder,
    {"sigma": p.sigma, "draws": p.draws},
)
found = [value for test in true for value in (test.mean, test.variance, test.shape)]
Markdown(
    f"The stated Gaussian: the smallest of {len(found)} p-values (mean, variance, shape; both"
    f" covariances) is {min(found):.2g}, or {min(1.0, len(found) * min(found)):.2g} corrected for"
    f" their number. The variance of the *other* covariance: {max(wrong):.1g} at most, so that the"
    " test can say no."
)

# %% [markdown]
# All classes see the *same* noise $\varepsilon$, so that their clouds are correlated:
# $\mathrm{corr}(\hat w_i^\top \varepsilon, \hat w_j^\top \varepsilon) = \hat w_i^\top \hat w_j$
# for $\Sigma = \sigma^2 I$ and unit anchors $\hat w_j$. Eq. 10 reads like one number for all
# classes (correlation 1), the code draws one for each (correlation 0). Which is nearer?

# %%
simplex = torch.nn.functional.normalize(torch.eye(10) - 0.1)  # as far apart as ten can be
noise = p.sigma * torch.randn(p.draws, 10, generator=generator)
off = torch.corrcoef((noise @ simplex.T).T)[~torch.eye(10, dtype=torch.bool)]
Markdown(f"Correlation for ten anchors far apart: {off.mean():.3f} measured, {-1 / 9:.3f} stated.")

# %% [markdown]
# Near 0: the code's independent draws, which this study takes too.

# %% [markdown]
# ## Step 2: the cosine (approximate)
#
# The perturbed feature has another length, and a cosine divides by it (Eq. 6). The paper takes the
# length as unchanged "because $\delta$ is a small number":
#
# $$z_j^\delta \approx s\left(\cos\theta_j + \frac{\delta}{\lVert f\rVert}\,\hat w_j^\top
# \varepsilon\right) \;(7), \qquad \text{but}\quad
# \mathbb E\,\frac{\lVert f + \delta\varepsilon\rVert^2}{\lVert f\rVert^2} =
# 1 + \Bigl(\frac{\delta}{\lVert f\rVert}\Bigr)^{2} \sigma^2 D .$$
#
# So the *dimension* decides how small is small. ResNet-32 has $D = 64$. Below, a feature at 60
# degrees from its anchor.

# %%
sizes = torch.linspace(0, 1, 21).tolist()
growth = {D: [gaussian.norm_growth(size, D, p.sigma) for size in sizes] for D in (2, 64, 512)}
feature, anchors = torch.zeros(64), torch.zeros(1, 64)
feature[0], anchors[0, 0], anchors[0, 1] = 1.0, 0.5, 0.75**0.5
noise = p.sigma * torch.randn(p.draws // 4, 64, generator=generator)
moved = [gaussian.clouded_cosines(feature, anchors, noise, size) for size in sizes]
lines = [("simplified (Eq. 7)", "#8A8A8A", "--", 1), ("exact (Eq. 6)", "#000000", "-", 0)]
cosines = [
    Series(
        Look(label, colour, line),
        [float(both[i].mean()) for both in moved],
        [float(both[i].std()) for both in moved],
    )
    for label, colour, line, i in lines
]
looks = {2: ("#8A8A8A", ":"), 64: ("#000000", "-"), 512: ("#8A8A8A", "--")}

# %%
show(
    cloud_figures.approximation_lines(
        sizes, [Series(Look(f"D = {D}", *looks[D]), growth[D]) for D in growth], cosines
    ),
    "02_approximation",
    "Length of the perturbed feature against the cloud size for three dimensions, and mean and"
    " spread of its cosine with an anchor, exact and simplified.",
    folder,
    {"sigma": p.sigma, "draws": p.draws // 4, "dimension": 64},
)

# %%
rows = []
for size in (0.05, 0.2, 1.0):
    exact, linear = gaussian.clouded_cosines(feature, anchors, noise, size)
    growth_at = gaussian.norm_growth(size, 64, p.sigma)
    gap = (exact - linear).square().mean().sqrt()
    rows.append([f"{size:g}", *(f"{float(c):.3f}" for c in (growth_at, gap, linear.std()))])
header = ["$\\delta / \\lVert f \\rVert$", "length", "error of the cosine", "its cloud (Eq. 7)"]
table(header, rows, "D = 64; root mean squares, and the standard deviation of the cloud itself.")

# %% [markdown]
# **What to notice.** Compare the last two columns: even where the length hardly grows, the error is
# a good part of the cloud. Noise *along* $f$ changes no cosine, and Eq. 7 counts it. The true
# cloud of a small noise has the spread $\sigma\sin\theta$ instead of $\sigma$: next to none for an
# image beside its anchor, which is where training puts it. A large noise turns the feature to a
# random direction, and all cosines shrink.

# %% [markdown]
# So take the cloud as *defined* on the logit. Noise on the feature is only its motivation.

# %% [markdown]
# ## Step 3: a size for each class (a decision)
#
# $$z_j^\delta = s\,(\cos\theta_j + \delta_j\, \varepsilon), \quad \varepsilon \sim \mathcal
# N(\mu, \sigma^2). \quad (8)$$
#
# Table 3 tries four sizes. The logarithm is Eq. 9; the powers $n_{\max}^e - n_j^e$ are read from
# their name; **the cosine**, $\cos(\tfrac{\pi}{2} n_j/n_{\max})$, **is the least certain**.

# %%
variant = ("gcl", {"mixup_alpha": 0, "sigma": p.sigma})
trained = run_variants(p, {"gcl": variant}, watched=True)["gcl"]  # the runs of notebook 1
data = trained[0].dataset
strategies = {
    Look("log. diff. (Eq. 9)", METHOD_LOOKS["gcl"].colour): {},
    Look("pow. diff., e = 1/4", "#000000", "--"): {"strategy": "power", "exponent": 0.25},
    Look("pow. diff., e = 1/3", "#8A8A8A", "-."): {"strategy": "power", "exponent": 1 / 3},
    Look("cos. (reconstructed)", "#56B4E9", ":"): {"strategy": "cosine"},
}
lines = [
    Series(look, cloud_sizes(data.class_counts, **choice).tolist())
    for look, choice in strategies.items()
]
show(
    values_by_class(data, {"Cloud size $δ_j$": lines}),
    "02_sizes",
    "Cloud size of each class, head to tail, for four strategies: all end at one; between, the"
    " logarithm is the smallest and the cosine the largest.",
    folder,
    {"class_counts": data.class_counts},
)

# %% [markdown]
# They agree at both ends and differ in what the middle gets. Notebook 6 measures what that does to
# the accuracy.

# %% [markdown]
# ## Step 4: no sign (a decision)
#
# $$z_y^\delta - z_j^\delta = s\,\bigl[(\cos\theta_y - \cos\theta_j) + (\delta_y - \delta_j)\,
# \varepsilon\bigr]. \quad (10)$$
#
# For a tail image $\delta_y > \delta_j$: a positive $\varepsilon$ widens the lead and saturates the
# image further. The paper wants the opposite, so it takes $-|\varepsilon|$, which is Eq. 11. What
# would the sign cost? Below: a tail image against the head; a full cloud reaches $r = s k \delta =
# 15$.

# %%
reach = 15.0
difference = torch.linspace(-5, 20, 251, dtype=torch.float64)
curves = [
    Series(Look("no cloud", "#000000"), (-binary_gradient(difference)).tolist()),
    Series(
        Look("ε with its sign", "#8A8A8A", "--"),
        (-gaussian.signed_binary_gradient(difference, reach, p.sigma)).tolist(),
    ),
    Series(
        Look("|ε|", METHOD_LOOKS["gcl"].colour),
        (-expected_binary_gradient(difference, reach, sigma=p.sigma)).tolist(),
    ),
]
show(
    gradient_curves(difference.tolist(), curves),
    "02_sign",
    "Mean gradient on the target logit against the clean difference: with the sign about half of"
    " that without at large differences, and below plain softmax at negative ones.",
    folder,
    {"reach": reach, "sigma": p.sigma},
)

# %% [markdown]
# **What to notice.** At large leads the sign halves the gradient, which stays far above that of
# plain softmax: there the effect does not need the absolute value. At the left signed noise pushes
# *less* than none, and its mean is zero. The absolute value makes a margin of random width.

# %% [markdown]
# ## Its mean is logit adjustment
#
# $$\mathbb E|\varepsilon| = \sigma\sqrt{\tfrac{2}{\pi}}\,\bigl(1 - e^{-1/(2\sigma^2)}\bigr) +
# \mathrm{erfc}\Bigl(\tfrac{1}{\sigma\sqrt 2}\Bigr), \qquad
# -s k\,\delta_j\,\mathbb E|\varepsilon| = \tau_{\mathrm{eff}} \log\frac{n_j}{n_{\max}}, \qquad
# \tau_{\mathrm{eff}} = \frac{s\,k\,\mathbb E|\varepsilon|}{\log(n_{\max}/n_{\min})}.$$
#
# With Eq. 9 the mean shift is linear in $\log n_j$, as in logit adjustment (Menon et al. 2021),
# which adds $\tau\log\pi_j$. The check: the loss with every $|\varepsilon|$ at its mean, minus
# `LogitAdjustedLoss` with this $\tau$.

# %%
mean, deviation = gaussian.cloud_moments(p.sigma)
cosine = 2 * torch.rand(512, 10, generator=generator, dtype=torch.float64) - 1
target = torch.randint(10, (512,), generator=generator)
rows = []
settings = [
    (f"CIFAR, stage {i}, ρ = {r}", s, 0.5, r) for i, s in ((1, 30), (2, 20)) for r in (50, 100, 200)
]
for title, s, k, ratio in [*settings, ("Places-LT, stage 1, ρ = 996", 30, 1.0, 996)]:
    counts = 5000 * float(ratio) ** -torch.linspace(0, 1, 10, dtype=torch.float64)
    tau = gaussian.matched_tau(counts, s, k, p.sigma)
    held = GCLLoss(counts, scale=s, noise_multiplier=k, reduction="none")
    adjusted = LogitAdjustedLoss(counts, tau=tau, scale=s, reduction="none")
    gap = held(cosine, target, torch.full_like(cosine, mean)) - adjusted(cosine, target)
    cells = f"{s * k * mean:.3f}", f"{tau:.3f}", f"{float(gap.abs().max()):.0e}"
    rows.append([title, *cells])
header = ["published code", "shift of the rarest", "τ eff", "largest loss difference"]
table(header, rows, f"E|ε| = {mean:.5f}, standard deviation {deviation:.5f}.")

# %% [markdown]
# **What to notice.** The losses agree to rounding. At $\sigma = 1/3$ the $\tau_{\mathrm{eff}}$ of
# stage 1 is near 1, with which logit adjustment aims at the mean of the class accuracies. That is
# not by design: GCL's largest margin does not depend on $\rho$, so that $\tau_{\mathrm{eff}}$ falls
# as the tail grows.

# %% [markdown]
# ## What the randomness adds
#
# The loss $\ell(d) = \log(1 + e^{-d})$ is convex in the lead $d = z_y - z_j$, so that its mean lies
# above its value at the mean (Jensen):
# $\mathbb E\,\ell(d - r|\varepsilon|) \ge \ell(d - r\,\mathbb E|\varepsilon|)$. The gap is what
# logit adjustment has not.

# %%
show(
    cloud_figures.jensen_gap(reach, p.sigma),
    "02_jensen",
    "Loss and gradient of a tail image against the logit difference, without a cloud, with the"
    " cloud held at its mean, and averaged over the cloud; the gap between the last two is shaded.",
    folder,
    {"reach": reach, "sigma": p.sigma},
)

# %%
at = torch.tensor([0.0, 2.0, 5.0, 10.0, 15.0], dtype=torch.float64)
over = -expected_binary_gradient(at, reach, sigma=p.sigma)
held = -binary_gradient(at - reach * mean)
loss = gaussian.expected_binary_loss(at, reach, p.sigma)
fixed = torch.nn.functional.softplus(reach * mean - at)
rows = [
    [f"{d:g}", f"{a:.3g}", f"{b:.3g}", f"{x:.3g}", f"{y:.3g}"]
    for d, a, b, x, y in zip(*(v.tolist() for v in (at, loss, fixed, over, held)), strict=True)
]
header = ["d", "loss: mean over ε", "at the mean", "gradient: mean over ε", "at the mean"]
table(header, rows, f"Two classes, r = {reach:g}.")

# %% [markdown]
# **What to notice.** A fixed margin pushes hard up to its width and then stops. The cloud pushes
# less before, and goes on long after.

# %% [markdown]
# ## In a trained network
#
# The gradient $1 - p_y$ of training images under GCL (stage 1, no mixup): its mean over 400 draws
# of the clouds, its value with all clouds at their mean, and its standard deviation over the draws.

# %%
measured = {
    "mean over the clouds": [],
    "clouds held at their mean": [],
    "spread over the clouds": [],
}
for run in trained:
    logits, reaches = training_logits(run).double(), cloud_reach(run)
    labels = run.dataset.train.labels
    drawn = gaussian.sampled_gradients(logits, labels, reaches, 400, generator, p.sigma)
    at_mean = -softmax_gradient(logits - reaches * mean, labels)
    values = (drawn.mean(0), at_mean.gather(1, labels[:, None])[:, 0], drawn.std(0))
    for title, by_image in zip(measured, values, strict=True):
        by_class = [float(by_image[labels == j].mean()) for j in range(data.num_classes)]
        measured[title].append(by_class)

# %%
looks = (
    Look("mean", cloud_figures.CLOUD.colour),
    Look("clouds at their mean", cloud_figures.FIXED.colour, "--"),
    Look("spread", "#8A8A8A", ":"),
)
lines = [over_seeds(look, rows) for look, rows in zip(looks, measured.values(), strict=True)]
title = "Gradient $1 - p_y$ of training images"
lowest = min(min(row) for rows in measured.values() for row in rows)
show(
    values_by_class(data, {title: lines}, floor={title: max(1e-6, lowest / 2)}),
    "02_spread",
    "Mean gradient over the clouds, gradient with the clouds at their mean, and standard deviation"
    " over the clouds, by class, head to tail, on a logarithmic axis.",
    folder,
    about_runs(trained),
)

# %%
by_group = {
    title: [group_means(torch.tensor(row), data.groups) for row in by_seed]
    for title, by_seed in measured.items()
}
rows = [
    [title, *(mean_and_spread([seed[g] for seed in by_seed], 5) for g in data.groups)]
    for title, by_seed in by_group.items()
]
table(["gradient $1 - p_y$", *data.groups], rows, protocol(trained))

# %% [markdown]
# **What to notice.** Where the first row of a group is far above the second, the images lie beyond
# the mean margin, and only rare wide draws still move them. A spread above the mean says the same.

# %% [markdown]
# That the randomness *helps* is not shown by this. The fair comparison is GCL against its fixed
# margin, seed by seed: notebook 6 makes it ("A cloud, or only a margin?").

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. *Predict, then compute.* Up to which $\delta/\lVert f\rVert$ does the length grow by less than
#    10 %, for $D = 64$ and for $D = 2048$ (ResNet-50)?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $\sqrt{1 + x^2\sigma^2 D} = 1.1$ gives $x = \sqrt{0.21}/(\sigma\sqrt D)$: 0.17 and 0.03 for
# $\sigma = 1/3$. Check with `gaussian.norm_growth`.
#
# </details>

# %% [markdown]
# 2. *Predict, then measure.* The target is the head, the competitor the rarest class ($r_y = 0$,
#    $r_j = 15$), the lead 2. Is the mean gradient larger or smaller than without a cloud, with
#    $|\varepsilon|$ and with its sign?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# With $|\varepsilon|$ the competitor is lowered, and the head image is filtered out. A signed noise
# is symmetric, so it does not matter whose it is: the head would stay as busy as the tail.
#
# </details>

# %% tags=["solution", "hide-cell"]
d = torch.tensor(2.0, dtype=torch.float64)
absolute = -expected_binary_gradient(d, 0.0, 15.0, sigma=p.sigma)
signed = -gaussian.signed_binary_gradient(d, 15.0, p.sigma)
print(f"none {-binary_gradient(d):.3f}, |ε| {absolute:.3f}, signed {signed:.3f}")

# %% [markdown]
# 3. Which $k$ makes $\tau_{\mathrm{eff}} = 1$ at $s = 30$, $\rho = 100$, $\sigma = 1/3$?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $k = \log(100) / (30 \cdot 0.26571) = 0.578$; `gaussian.matched_tau([100, 1], 30, 0.578)` gives
# 1.000.
#
# </details>

# %% [markdown]
# ## Summary
#
# Noise on a feature is noise on each logit: exactly for a linear classifier; for a cosine one only
# while it is small, and with $\sin\theta$ times the spread. Read the cloud as a margin of random
# width $s k \delta_j |\varepsilon|$. Its mean is a logit adjustment. Its randomness pushes less
# near the boundary and goes on longer beyond it.

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3.2, 4.2.
# - A. K. Menon et al. *Long-tail Learning via Logit Adjustment.* ICLR 2021.
# - B. Chen, W. Deng, J. Du. *Noisy Softmax.* CVPR 2017 (noise of one sign on the target's logit).
# - F. Wang et al. *NormFace.* ACM MM 2017 (why a cosine classifier needs a scale).
