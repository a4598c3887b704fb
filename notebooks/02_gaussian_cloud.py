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
# Notebook 1 used the cloud as given: the loss lowers the cosine of class $j$ by $k\,\delta_j
# |\varepsilon_j|$. Here it is built up from the paper's argument (Sec. 3.2, Eq. 4 to 12), which
# starts somewhere else, at Gaussian noise on the *feature*, and arrives at a random number on the
# *logit*. Every step is simulated or computed: two hold exactly, one is an approximation whose
# error is measured, and one is a decision.
#
# Afterwards you can say which noise on a feature a cloud stands for and when that reading breaks
# down, why the noise has lost its sign, which fixed margin has the same mean, and what the
# randomness does that this margin does not.

# %% [markdown]
# ## Parameters
#
# By itself and from nothing this notebook takes 26 seconds and 1.9 GB of memory on two cores.
#
# Change them with, for example, `papermill notebooks/02_gaussian_cloud.ipynb out.ipynb -p sigma
# 0.5`. The networks of the last section are trained; all else is arithmetic.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 3  # runs of GCL for the last section, from seed 0 on
sigma: float = 0.3333333333333333  # standard deviation of the noise; 1/3: the paper, Sec. 4.2
draws: int = 20000  # random vectors in each simulation
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0, "draws": 100, "sigma": 0.01}
)
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here. The functions of `gcl_core.analysis.gaussian` are this notebook in
# code; each names its equation. All noise comes from one generator with a fixed seed.

# %%
import torch

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

# %% [markdown]
# ## From noise on the feature to noise on the logit
#
# A linear classifier without bias has one *anchor* $w_j$ for each class and the logits $z_j =
# w_j^\top f$ of a feature $f \in \mathbb R^D$. Perturb the feature with Gaussian noise:
#
# $$f^\delta = f + \delta\,\varepsilon, \quad \varepsilon \sim \mathcal N(\mu, \Sigma) \quad (4)
# \qquad\qquad z_j^\delta = w_j^\top f^\delta = z_j + \delta\, w_j^\top \varepsilon. \quad (5)$$
#
# (The copy of the paper that we work from has lost its formulas. Eq. 9, 11 and 12 below agree with
# the published code; the others are written down from the sentences around them.) Only the
# projection of the noise on the anchor matters. With $\hat w_j
# = w_j / \lVert w_j \rVert$ it is Gaussian for *every* $\Sigma$:
#
# $$\hat w_j^\top \varepsilon \sim \mathcal N(\hat w_j^\top \mu, \hat w_j^\top \Sigma\hat w_j).$$
#
# The paper sets $\Sigma = \sigma^2 I$ so that "the clouded cosine logit still satisfy the Gaussian
# distribution". For that alone it would not be needed; what it does is give all classes the *same*
# variance $\sigma^2$, wherever their anchors point. We draw noise in 2, 64 and 512 dimensions,
# project it on a random anchor, and test mean, variance and shape.

# %%
projections, rows = {}, []
for D in (2, 64, 512):
    anchor = torch.nn.functional.normalize(torch.randn(D, generator=generator), dim=0)
    wide = torch.linspace(0.5, 1.5, D)  # a covariance that is not a multiple of I
    for title, shift, stretch, stated in (
        ("Σ = σ² I", 0.0, torch.ones(D), torch.ones(D)),
        ("Σ = σ² I, all means μ = 0.1", 0.1, torch.ones(D), torch.ones(D)),
        ("Σ diagonal, 0.5 to 1.5 σ", 0.0, wide, wide),
        ("the same, stated as σ² I", 0.0, wide, torch.ones(D)),
    ):
        noise = shift + p.sigma * stretch * torch.randn(p.draws, D, generator=generator)
        projections.setdefault(f"D = {D}", noise @ anchor)
        spread = p.sigma * float((stated * anchor).norm())
        test = gaussian.gaussian_test(noise @ anchor, shift * float(anchor.sum()), spread)
        cells = (spread, test.mean, test.variance, test.shape)
        rows.append([f"D = {D}, {title}", *(f"{value:.3f}" for value in cells)])

# %%
show(
    cloud_figures.projection_histograms(projections, 0.0, p.sigma),
    "02_projections",
    "Histograms of Gaussian noise in 2, 64 and 512 dimensions projected on one direction; all three"
    " follow the same normal density.",
    folder,
    {"sigma": p.sigma, "draws": p.draws},
)

# %%
header = ["noise", "stated deviation", "p: mean", "p: variance", "p: shape"]
table(header, rows, f"{p.draws} draws; z test, chi-square test, Kolmogorov-Smirnov test.")

# %% [markdown]
# **What to notice.** In every dimension the projection is the stated Gaussian, with any mean and
# any covariance. (A p-value is the chance that a sample of the stated Gaussian would be at least as
# unlike it as this one; of 27 for true statements one is below 0.05, where chance alone gives one
# or two.) The last row of each dimension states the *wrong* variance, to see that the tests can say
# no: that of the variance rejects all three, that of the shape two.
# With $D = 2$ and $\Sigma \ne \sigma^2 I$ the deviation depends on where the anchor points; in high
# dimensions an anchor in a random direction averages that out.
#
# ## One noise, many classes
#
# All classes of an image see the *same* perturbed feature, so their clouds are not independent: for
# $\Sigma = \sigma^2 I$
#
# $$\mathrm{corr}(\hat w_i^\top \varepsilon, \hat w_j^\top \varepsilon) = \hat w_i^\top \hat w_j.$$
#
# The paper's sentence on Eq. 10 speaks of one $\varepsilon$, as if all classes shared a number; the
# published code draws one for each image and class. Neither follows from Eq. 4. But we can measure
# which of the two is closer to it: ten anchors that are as far apart as possible have cosines of
# $-1/9$.

# %%
simplex = torch.eye(10) - 0.1
noise = p.sigma * torch.randn(p.draws, 10, generator=generator)
clouds = noise @ torch.nn.functional.normalize(simplex).T
correlation = torch.corrcoef(clouds.T)
off = correlation[~torch.eye(10, dtype=torch.bool)]
rows = [
    ["one ε shared (a reading of Eq. 10)", "1"],
    ["one ε for each class (published code)", "0"],
    ["projections on 10 anchors, stated", f"{-1 / 9:.3f}"],
    ["projections on 10 anchors, measured", f"{off.mean():.3f}"],
]
table(["clouds of two classes", "correlation"], rows, "Mean over all pairs of ten classes.")

# %% [markdown]
# **What to notice.** A noise on the feature makes the clouds of two classes correlated like the
# cosine of their anchors. For well-separated anchors that is close to zero: the independent
# $\varepsilon$ of the published code is nearly what Eq. 4 gives, a shared $\varepsilon$ is what it
# would give if all anchors were the same. This study draws independent ones. (The sign, which both
# lose below, is another matter: a noise on the feature that is symmetric around 0 raises each logit
# as often as it lowers it, so $-|\varepsilon|$ for every class is no such noise.)
#
# ## The cosine, and what Eq. 7 leaves out
#
# GCL has a cosine classifier: feature and anchor are divided by their lengths, and their product is
# a constant $s$, the scale. The perturbed feature has another length than the clean one:
#
# $$z_j^\delta = s\left(\frac{w_j^\top f}{\lVert w_j\rVert\,\lVert f + \delta\varepsilon\rVert} +
# \frac{\delta\, w_j^\top\varepsilon}{\lVert w_j\rVert\,\lVert f+\delta\varepsilon\rVert}\right)
# \;(6) \qquad \approx \qquad s\left(\cos\theta_j + \frac{\delta}{\lVert f\rVert}\,\hat w_j^\top
# \varepsilon\right) \;(7)$$
#
# where $\theta_j$ is the angle between $f$ and $w_j$, and the step takes $\lVert f +
# \delta\varepsilon \rVert \approx \lVert f \rVert$ "because $\delta$ is a small number". How small?
# With $\mu = 0$, from $\mathbb E \lVert \varepsilon\rVert^2 = \sigma^2 D$ follows
#
# $$\sqrt{\mathbb E\,\frac{\lVert f + \delta\varepsilon\rVert^2}{\lVert f\rVert^2}} =
# \sqrt{1 + \Bigl(\frac{\delta}{\lVert f\rVert}\Bigr)^{2} \sigma^2 D}.$$
#
# So for the length it is the *dimension* that decides. ResNet-32 has $D = 64$. We measure the
# length, and the cosine of a feature at 60 degrees from its anchor, exact and simplified.

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
for size in (0.05, 0.1, 0.2, 0.5, 1.0):
    exact, linear = gaussian.clouded_cosines(feature, anchors, noise, size)
    length = (linear / exact).abs()[:, 0]
    cells = (length.square().mean().sqrt(), gaussian.norm_growth(size, 64, p.sigma))
    gap = (exact - linear).square().mean().sqrt()
    rows.append([f"{size:g}", *(f"{float(c):.3f}" for c in (*cells, gap, linear.std()))])
header = ["δ / |f|", "length, measured", "stated", "error of the cosine", "its cloud (Eq. 7)"]
table(header, rows, "D = 64; root mean squares, and the standard deviation of the cloud itself.")

# %% [markdown]
# **What to notice.** The length follows the stated root exactly, and it is not near 1 for long: at
# $D = 64$ it has grown by 3.5 % at $\delta/\lVert f\rVert = 0.1$, by 13 % at 0.2, by 67 % at 0.5
# and is almost three times as long at 1. Already at 0.2 the error of the simplified cosine is as
# large as the cloud itself. In truth a strong noise in 64 dimensions turns the feature towards a
# random direction, at right angles to nearly every anchor, so that all cosines shrink towards 0,
# and the cloud stays narrower.
#
# And no cloud is small enough: at 0.05 the error is still half of the cloud, and there it stays.
# Noise along $f$ only changes its length, which a cosine does not see and Eq. 7 counts. For
# $\delta/\lVert f\rVert \to 0$ the error is $\cos\theta$ of the cloud of Eq. 7 (a half at 60
# degrees), and the true cloud has the spread $\sigma\sin\theta$ instead of $\sigma$: next to none
# for an image beside its anchor, which is where training puts it.
#
# From here on it is better to take the cloud as *defined* on the logit. What the method does is
# Eq. 11; that it imitates noise on the feature is its motivation.
#
# ## The cloud of a class: one number
#
# What is left is one Gaussian number for each image and class, with a size that may depend on the
# class. The number $\hat w_j^\top\varepsilon$ is from here on called $\varepsilon$ itself, and
# $\delta/\lVert f\rVert$ becomes a $\delta_j$ for each class:
#
# $$z_j^\delta = s\,(\cos\theta_j + \delta_j\, \varepsilon), \quad \varepsilon \sim \mathcal N(\mu,
# \sigma^2) \;(8) \qquad\qquad \delta_j = \log n_{\max} - \log n_j. \;(9)$$
#
# The sizes are divided by the largest, so that the rarest class has $\delta_j = 1$; with $\mu = 0$
# and $\sigma = 1/3$, 99.7 % of the noise lies in $[-1, 1]$, and the rest is clamped to it (Sec.
# 4.2). The paper's Table 3 tries four sizes. Its expressions are not legible in our copy. The
# logarithm is Eq. 9 and the published code, the only one there; the two powers, $n_{\max}^e -
# n_j^e$, are reconstructed from their name ("power difference"); **the cosine**,
# $\cos(\tfrac{\pi}{2} n_j/n_{\max})$, **is the least certain**: any cosine form that is zero at the
# head would fit.

# %%
trained = run_variants(p, {"gcl": ("gcl", {"mixup_alpha": 0, "sigma": p.sigma})})["gcl"]
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
    "Cloud size of each class, head to tail, for four strategies: the logarithm is nearly a"
    " straight line, the cosine is close to one from the fourth class on.",
    folder,
    {"class_counts": data.class_counts},
)

# %% [markdown]
# **What to notice.** The four agree at both ends by construction. They differ in how much cloud the
# middle gets: the cosine treats all but the first three classes like the rarest one, the logarithm
# is linear in the class index, since the counts are exponential (the small kinks are rounding to
# whole images). What that is worth is Table 3 of the paper, and notebook 6 here.
#
# ## Why the noise loses its sign
#
# With Eq. 8 the difference between the target $y$ and another class $j$ is
#
# $$z_y^\delta - z_j^\delta = s\,\bigl[(\cos\theta_y - \cos\theta_j) + (\delta_y - \delta_j)\,
# \varepsilon\bigr]. \quad (10)$$
#
# For a tail image among head classes $\delta_y > \delta_j$. If $\varepsilon > 0$ the difference
# grows, and with it the saturation: the opposite of what was wanted. So the paper requires
# $\varepsilon$ to be negative, which gives
#
# $$z_j^\delta = s\,(\cos\theta_j - \delta_j\,|\varepsilon|) \;(11) \qquad\qquad L = -\log
# \frac{e^{z_y^\delta}}{\sum_j e^{z_j^\delta}}. \;(12)$$
#
# The published code has a further factor $k$ on the cloud ($1/2$ on CIFAR), which the text does not
# have. Below, the mean gradient of a tail image against the head with the code's $s = 30$, $k =
# 1/2$: a full cloud reaches $r = s k \delta = 15$ units of the logit. With its sign,
# $\varepsilon$ lowers the logit half of the time and raises it the other half; the mean gradient is
# the average of the two.

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
# **What to notice.** Keeping the sign does not destroy the effect where the paper looks for it: at
# large differences the mean gradient is almost exactly *half* of that with $|\varepsilon|$, and so
# still far above plain softmax. (Half of the clouds raise the logit; there is little left to lose
# by that.) What the sign would cost is on the other side: for images on the wrong side of the
# boundary, $d < 0$, the signed noise gives *less* gradient than none, while $|\varepsilon|$ gives
# more. And the mean logit would not move: no margin at all, only noise. The absolute value turns a
# symmetric perturbation into a margin of random width; what Eq. 10 argues for is this margin, not
# the gradient at large differences.
#
# ## The mean of the cloud is a logit adjustment
#
# On average the cloud lowers $z_j$ by $s k \delta_j \mathbb E|\varepsilon|$. For clamped noise
#
# $$\mathbb E|\varepsilon| = \sigma\sqrt{\tfrac{2}{\pi}}\,\bigl(1 - e^{-1/(2\sigma^2)}\bigr) +
# \mathrm{erfc}\Bigl(\tfrac{1}{\sigma\sqrt 2}\Bigr),$$
#
# and with Eq. 9 the shift is linear in $\log n_j$. That is *logit adjustment in training* (Menon et
# al. 2021), which adds $\tau\log\pi_j$ with the class prior $\pi_j = n_j/\sum_i n_i$: up to a
# number that is the same for all classes, and so drops out of the softmax,
#
# $$-s k\,\delta_j\,\mathbb E|\varepsilon| = \tau_{\mathrm{eff}} \log\frac{n_j}{n_{\max}}, \qquad
# \tau_{\mathrm{eff}} = \frac{s\,k\,\mathbb E|\varepsilon|}{\log(n_{\max}/n_{\min})}.$$
#
# The check: cross-entropy of random cosines under GCL with every $|\varepsilon|$ held at its mean,
# minus that under `LogitAdjustedLoss` with this $\tau$.

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
# **What to notice.** The two losses agree to the last digits of float32 numbers: GCL with its noise
# replaced by the mean *is* logit adjustment with $\tau_{\mathrm{eff}}$. Stage 1 with the published
# settings for CIFAR has it close to the $\tau = 1$ with which logit adjustment aims at the mean of
# the class accuracies: 1.02 at $\rho = 50$, 0.87 at 100, 0.75 at 200. (Stage 2, in which the
# classifier is re-trained on balanced batches, has two thirds of that; Places-LT, with another $k$,
# 1.16.) That is not by design of the formula: GCL's
# margin of the rarest class does not depend on $\rho$, so its $\tau_{\mathrm{eff}}$ falls as the
# tail gets longer. Only the logarithmic cloud has such a twin; for the other sizes the shift is not
# proportional to $\log n_j$.
#
# ## What the randomness adds
#
# The loss is a convex function of the logit difference $d = z_y - z_j$, so its mean over the cloud
# lies above its value at the mean of the cloud (Jensen's inequality). The gap is what GCL has and
# logit adjustment with $\tau_{\mathrm{eff}}$ has not:
#
# $$\mathbb E\,\ell(d - r|\varepsilon|) \ge \ell(d - r\,\mathbb E|\varepsilon|), \qquad
# \ell(d) = \log(1 + e^{-d}).$$

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
# **What to notice.** The gap in the loss is largest, 0.71, at $d \approx 4.3$, about where the mean
# cloud has eaten the difference ($r\,\mathbb E|\varepsilon| = 3.99$); far to the left, where the
# loss is a straight line, there is none. For the gradient the gap changes its sign at the same
# place. A fixed margin pushes hard up to its width and then stops: at $d = 10$ it gives 0.0024. The
# mean over the cloud pushes less before and much longer after: 0.060 at $d = 10$, 25 times as much.
# So the random margin pushes images near the boundary less than a fixed margin of the same mean
# does, and images far beyond it more. (The slider of notebook 1 shows the same for one image.)

# %% [markdown]
# ## Two classes on a circle
#
# With two classes and two-dimensional features everything can be drawn. The anchors of head and
# tail stand at 60 degrees below and above an axis, and a feature at the angle $\varphi$ from it has
# the clean difference $d = s(\cos\theta_t - \cos\theta_h) = 2 s \sin 60^\circ \sin\varphi$. Only
# the tail has a cloud. Training is undecided ($p_y = 1/2$) where $2\sin 60^\circ\sin\varphi =
# k\,\delta\,|\varepsilon|$: the boundary is not a line but a fan.

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
# **What to notice.** Move $s$ (in JupyterLab): the fan stays where it is. The scale does not move
# the training boundary, it sharpens it: at $s = 30$ the gradient without a cloud falls from 1 to 0
# within some ten degrees, and averaged over the cloud within some twenty; at $s = 1$ no direction
# on the circle is saturated, cloud or not. Only $k\delta$ opens the fan, and both enter by their
# product. At test time there is no cloud, and the boundary is the clean one: what the fan does is
# to push tail images in training up to its far side, so that unseen ones have room on the near
# side. The edge of the fan is where a *full* cloud would put the boundary; only 0.3 % of the noise
# gets there, and half of it stays below 0.22 of the way, the median of $|\varepsilon|$.
#
# ## In a trained network: who feels the randomness
#
# Last, the training images of Digits-LT under GCL (stage 1, no mixup). For each image the gradient
# $1 - p_y$ is drawn under 400 clouds: its mean, its value with all clouds at their mean, and its
# standard deviation, averaged over the images of a class.

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
show(
    values_by_class(data, {title: lines}, floor={title: 1e-6}),
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
# **What to notice.** In the tail the mean over the clouds is ten to forty times the gradient at the
# mean cloud, by seed: these networks have left the fixed margin of $\tau_{\mathrm{eff}}$ behind,
# and what still moves them are the rare wide clouds. The spread says the same: it is two to five
# times the mean, as most clouds leave an image alone and a few push hard. For the many-shot classes
# all three are small; the first has no cloud of its own, and what it feels comes from the clouds of
# its competitors.
#
# That this randomness *helps* is not shown by these numbers. The fair comparison is GCL with its
# clouds replaced by the fixed margin of the same mean, and notebook 6 makes it ("A cloud, or only a
# margin?"): in stage 1 the margin alone is a point *better* there, about its own spread, and after
# stage 2 the two are level. On these data nothing speaks for the randomness itself.
#
# ## Exercises
#
# Each asks for a prediction or a measurement; the solution is folded away below it.

# %% [markdown]
# 1. *Predict, then compute.* Up to which $\delta/\lVert f\rVert$ does the length of the feature
#    grow by less than 10 %, for $D = 64$ (ResNet-32) and for $D = 2048$ (ResNet-50)? Check with
#    `gaussian.norm_growth`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $\sqrt{1 + x^2\sigma^2 D} = 1.1$ gives $x = \sqrt{0.21}/(\sigma\sqrt D)$: 0.17 for $D = 64$ and
# 0.03 for $D = 2048$. The larger the network, the smaller "a small number" has to be.
#
# </details>

# %% [markdown]
# 2. *Predict, then measure.* Now the target is the head and the competitor the rarest class: $r_y =
#    0$, $r_j = 15$, at the clean difference $d = 2$. Is the mean gradient larger or smaller than
#    without a cloud, with $|\varepsilon|$ and with a signed $\varepsilon$? Use
#    `expected_binary_gradient` and `gaussian.signed_binary_gradient`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# With $|\varepsilon|$ the competitor is lowered, the difference grows, and the gradient falls from
# 0.119 to 0.019: the head is "filtered out". A signed noise is symmetric, so it does not matter
# whose it is: 0.353, three times *more* than without. Without the absolute value the head would
# stay as busy as the tail.
#
# </details>

# %% tags=["solution", "hide-cell"]
d = torch.tensor(2.0, dtype=torch.float64)
absolute = -expected_binary_gradient(d, 0.0, 15.0, sigma=p.sigma)
signed = -gaussian.signed_binary_gradient(d, 15.0, p.sigma)
print(f"none {-binary_gradient(d):.3f}, |ε| {absolute:.3f}, signed {signed:.3f}")

# %% [markdown]
# 3. Which $k$ makes $\tau_{\mathrm{eff}} = 1$ at $s = 30$ and $\rho = 100$? Solve for it, then
#    check with `gaussian.matched_tau`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $k = \log(100) / (30 \cdot 0.26571) = 0.578$; `matched_tau([100, 1], 30, 0.578)` gives 1.000. The
# published 0.5 is 13 % below it.
#
# </details>

# %% [markdown]
# 4. *Predict, then measure.* How much of $\mathbb E|\varepsilon|$ does the clamp to $[-1, 1]$ cut
#    off, at $\sigma = 1/3$ and at $\sigma = 1$? (Without it the mean is $\sigma\sqrt{2/\pi}$.)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# `gaussian.cloud_moments`: 0.26571 instead of 0.26596 at $\sigma = 1/3$, a thousandth; 0.631
# instead of 0.798 at $\sigma = 1$, a fifth, as 32 % of the noise is clamped. At the paper's
# $\sigma$ the clamp is a safeguard; at $\sigma = 1$ it would make a third of the clouds full ones.
#
# </details>

# %% [markdown]
# ## Summary
#
# Gaussian noise on a feature is Gaussian noise on each logit: exactly so for a linear classifier.
# For a cosine classifier it is so only while it is small against the feature, $\delta\sigma\sqrt D
# \ll \lVert f \rVert$, and then with $\sin\theta$ times the spread. GCL's cloud is best read as a
# margin of random width $s k \delta_j |\varepsilon|$. Its mean is a logit adjustment with a $\tau$
# of 0.75 to 1.02 in stage 1 on CIFAR-10; its randomness pushes images near the boundary less and
# keeps those beyond it at work for longer. Whether that is worth anything beyond the mean is the
# question of notebook 6.
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3.2, 4.2 and
#   4.5.2.
# - A. K. Menon et al. *Long-tail Learning via Logit Adjustment.* ICLR 2021.
# - B. Chen, W. Deng, J. Du. *Noisy Softmax: Improving the Generalization Ability of DCNN via
#   Postponing the Early Softmax Saturation.* CVPR 2017 (noise of one sign on the target's logit).
# - F. Wang et al. *NormFace: L2 Hypersphere Embedding for Face Verification.* ACM MM 2017 (why a
#   cosine classifier needs a scale).
