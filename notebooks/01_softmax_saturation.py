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
# # 1. Softmax saturation: why do gradients die early?
#
# An image is classified right. **How long does it go on teaching the network?** Not for long, says
# the paper (Sec. 3.1): its gradient soon vanishes. A random "cloud" on the logits is to keep the
# gradient of rare images alive and to let that of frequent ones vanish. And is it true that the
# head pushes the tail's weights away (Sec. 3.3)?
#
# Afterwards you can read a gradient off a logit difference, and tell what a cloud does to a fixed
# network from what training makes of it.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seeds: int = 5  # runs of each network, from seed 0 on
threshold: float = 0.01  # an image is active while its gradient is above this
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "workers": 0})
folder = project_path(p.figures)

# %% tags=["hide-input"]
import torch
import torch.nn.functional as F

from gcl_core.analysis.saturation import binary_gradient, expected_binary_gradient, saturation
from gcl_core.course.interaction import Slider, explore
from gcl_core.course.notebook import JUDGED, judged, protocol, run_variants, show, table
from gcl_core.figures.charts import gradient_curves, sweeps, values_by_class
from gcl_core.figures.cloud import gradient_at
from gcl_core.figures.looks import GROUP_COLOURS, GROUP_LOOKS, METHOD_LOOKS, Look
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import Series, over_seeds
from gcl_core.results.tables import mean_and_spread

# %%
explore(
    gradient_at,
    "01_gradient_at",
    "Gradient at one logit difference: on the curves without a cloud and averaged over the cloud,"
    " and as the share of clouds that leave each tenth of it.",
    folder,
    difference=Slider("logit difference d", 5.0, -5.0, 20.0, 0.5),
    reach=Slider("reach of the cloud", 15.0, 0.0, 30.0, 0.5),
)

# %% [markdown]
# The cloud lowers the image's own logit by a random amount. Left: the gradient on this logit,
# against its lead over the other one. Right: the gradient with single draws of the cloud. Many
# draws leave nearly none, some nearly all of it; the mean is no typical draw. (In JupyterLab there
# are sliders.)

# %% [markdown]
# ## The gradient of the softmax
#
# With logits $z$ and the class $y$ of the image,
#
# $$L = -\log p_y, \quad p = \mathrm{softmax}(z) \quad (1) \qquad
# \frac{\partial L}{\partial z_j} = p_j - [j = y] \quad (2) \qquad
# \frac{\partial L}{\partial z_y} = \frac{-1}{1 + e^{\,z_y - z_j}} \quad (3)$$
#
# where Eq. 3 is for two classes. (Our copy of the paper has lost its formulas; these are standard
# and fit every sentence around them.) Autograd agrees:

# %%
rows = []
for d in (0.0, 2.0, 5.0, 10.0):
    z = torch.tensor([[d, 0.0]], requires_grad=True)
    F.cross_entropy(z, torch.tensor([0])).backward()
    rows.append([f"{d:g}", f"{-z.grad[0, 0]:.5f}", f"{-binary_gradient(torch.tensor(d)):.5f}"])
table(["lead $z_y - z_j$", "autograd", "Eq. 3"], rows, "Size of the gradient on the own logit.")

# %% [markdown]
# Each further unit of the lead divides the gradient by nearly $e$. Far out an image is *saturated*:
# it is right, and teaches nothing more, whether its class has many images or few.

# %% [markdown]
# ## What a cloud does to it
#
# GCL has a cosine classifier with the scale $s$, and in training lowers the cosine of class $j$ by
# a random amount (Eq. 11; notebook 2 takes it apart):
#
# $$z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|), \qquad
# \varepsilon_j \sim \mathcal N(0, \tfrac13^2) \text{ clamped to } [-1, 1].$$
#
# The size $\delta_j$ goes from 0 for the most frequent class to 1 for the rarest. With the
# published $s = 30$, $k = \tfrac12$ a full cloud reaches $s k = 15$ units of the logit. The mean
# over $\varepsilon$ is computed by quadrature.

# %%
reach = 30 * 0.5
difference = torch.linspace(-5, 20, 251)
clouds = {  # label: colour, line, reach of the target's cloud, reach of the other class's
    "head against tail": (GROUP_COLOURS["many"], "-.", 0.0, reach),
    "no clouds": (METHOD_LOOKS["ce"].colour, "-", 0.0, 0.0),
    "middle against head": (GROUP_COLOURS["medium"], "--", reach / 2, 0.0),
    "tail against head": (GROUP_COLOURS["few"], "-", reach, 0.0),
}
curves = [
    Series(Look(label, colour, line), (-expected_binary_gradient(difference, own, other)).tolist())
    for label, (colour, line, own, other) in clouds.items()
]
show(
    gradient_curves(difference.tolist(), curves),
    "01_gradient",
    "Mean gradient on the target logit against the clean logit difference, for four pairs of"
    " classes: it dies early for the head against the tail, and late for the tail.",
    folder,
    {"scale": 30, "noise_multiplier": 0.5, "sigma": "1/3"},
)

# %% [markdown]
# **What to notice.** A tail image keeps its gradient over a wide range. A head image with a tail
# competitor loses it even earlier than without clouds: it is "automatically filtered out" (Sec. 1).

# %% [markdown]
# ## Measured on what is trained on
#
# That was at a *fixed* lead, and training answers by raising the lead. So we train four networks:
#
# - **CE**: cross-entropy;
# - **no cloud**: GCL with $k = 0$, which is cross-entropy of $30 \cos\theta_j$;
# - **GCL, no mixup**: with the clouds;
# - **GCL**: as published, with mixup, which trains on blends of two images.

# %% [markdown]
# Each is measured on an epoch of its own batches: augmented, blended, with its clouds. A blend
# has two labels with weights $t_j$; its gradient is $p - t$, and $\tfrac12 \sum_j |p_j - t_j|$
# measures it, which is $1 - p_y$ for one label. It is zero once the network predicts the blend.

# %%
green = METHOD_LOOKS["gcl"].colour
networks = {
    "ce": (METHOD_LOOKS["ce"], "ce", {}),
    "no_cloud": (METHOD_LOOKS["no_cloud"], "gcl", {"mixup_alpha": 0, "noise_multiplier": 0}),
    "plain": (Look("GCL, no mixup", green, "--"), "gcl", {"mixup_alpha": 0}),
    "gcl": (Look("GCL", green), "gcl", {}),
}
variants = {name: variant for name, (_, *variant) in networks.items()}
trained = run_variants(p, variants, watched=True)
data = trained["ce"][0].dataset
print(data)

# %%
own = {"cloud": True, "as_trained": True, "threshold": p.threshold}
measured = {name: [saturation(run, **own) for run in trained[name]] for name in networks}
panels = {"Mean gradient": ("mean", 1), f"Images above {p.threshold:g} (%)": ("active", 100)}
lines = {
    title: [
        over_seeds(networks[n][0], [(unit * getattr(m, what)).tolist() for m in measured[n]])
        for n in networks
    ]
    for title, (what, unit) in panels.items()
}
show(
    values_by_class(data, lines, floor={"Mean gradient": 1e-4}),
    "01_saturation_by_class",
    "Mean gradient and share of active images by class for four networks, head to tail, each"
    " measured on the batches that it is trained on.",
    folder,
    about_runs(*trained.values()),
)


# %%
def by_group(found, what="mean"):
    """Mean over the classes of each group, in percent, a value for each seed."""
    return {
        g: [100 * float(getattr(m, what)[list(c)].mean()) for m in found]
        for g, c in data.groups.items()
    }


clean = {
    name: [saturation(run, threshold=p.threshold) for run in trained[name]] for name in networks
}
rows = [
    [f"{networks[name][0].label}, {how}", *(mean_and_spread(v, 2) for v in by_group(m).values())]
    for name in networks
    for how, m in (("as trained", measured[name]), ("clean", clean[name]))
]
header = ["mean gradient (%)", *data.groups]
table(header, rows, f"Clean: images as they are, no clouds. {protocol(trained['ce'])}.")

# %% [markdown]
# Read the first row of each pair: where the *many*-shot classes have the smallest gradient, it is
# the head that saturates. The next table compares clean rows seed by seed: where the tail's
# gradient is smaller with a cloud than without, training has moved its images further from the
# boundary, as a margin would.

# %%
rows = []
for name, base in (("plain", "no_cloud"), ("gcl", "plain"), ("gcl", "ce")):
    compared = (
        [by_group(measured[each], "active")["few"] for each in (name, base)],
        [by_group(clean[each])["few"] for each in (name, base)],
        [[run.result["few"] for run in trained[each]] for each in (name, base)],
    )
    cells = [
        [None if a is None else a - b for a, b in zip(*both, strict=True)] for both in compared
    ]
    label = f"{networks[name][0].label} − {networks[base][0].label}"
    rows.append([label, *(judged(cell) for cell in cells)])
header = ["few-shot classes, points", "active images", "gradient, clean", "test accuracy"]
table(header, rows, f"{JUDGED}. {protocol(trained['ce'])}.")

# %% [markdown]
# ## Through training: who falls silent when
#
# *Early* saturation is a statement about epochs. The first three runs of each network have kept
# their weights at a dozen epochs. Equal steps along the axis are equal factors; 0 is before the
# first epoch.

# %%
epochs = trained["gcl"][0].kept
through = {
    name: [[saturation(run.at(epoch), **own) for epoch in epochs] for run in trained[name][:3]]
    for name in networks
}


# %%
def by_epoch(value):
    """Lines of each group by network; `value` of a measurement and the classes of a group."""
    return {
        networks[name][0].label: [
            over_seeds(GROUP_LOOKS[g], [[value(m, list(c)) for m in run] for run in runs])
            for g, c in data.groups.items()
        ]
        for name, runs in through.items()
    }


active = by_epoch(lambda m, c: 100 * float(m.active[c].mean()))
show(
    sweeps(epochs, "epoch", active, f"images above {p.threshold:g} (%)", doubling=True),
    "01_saturation_by_epoch",
    "Share of active images of each group by epoch, one panel for each network.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# **What to notice.** Where the few-shot classes fall last, early saturation is not what keeps the
# tail from being learnt. And a network that is trained on blends hardly ever predicts one exactly,
# so that with mixup, as published, more images stay active: compare the last panel.

# %% [markdown]
# ## Who does the pushing
#
# The gradient of an epoch is a sum over images, and the head has most of them.

# %%
shares = by_epoch(lambda m, c: 100 * float(m.share[c].sum()))
show(
    sweeps(epochs, "epoch", shares, "share of the gradient (%)", doubling=True),
    "01_share_by_epoch",
    "Share of each group in the sum of the gradients of an epoch, by epoch, for each network.",
    folder,
    about_runs(*trained.values()),
)

# %%
unblended = [saturation(run, cloud=True) for run in trained["gcl"]]
ends = {networks[name][0].label: measured[name] for name in networks}
ends["GCL, measured on unblended images"] = unblended
rows = [
    [
        label,
        *(
            mean_and_spread([100 * float(m.share[list(c)].sum()) for m in found])
            for c in data.groups.values()
        ),
    ]
    for label, found in ends.items()
]
table(["share at the end (%)", *data.groups], rows, protocol(trained["ce"]))

# %% [markdown]
# Saturation filters out the head if the head's share of the gradient falls below its share of the
# images, where the lines start. Does it, without mixup and with it? The last row is the network of
# the row above, measured on single images, which it is never trained on.

# %% [markdown]
# ## Are the tail's weights pushed away? (Sec. 3.3)
#
# "The classifier weights of tail classes receive much more penalty than positive signals": an image
# of another class lowers the logit of class $j$ by $p_j$, an image of its own lifts it by $1 -
# p_j$. Both sums can be counted. Half, the middle of the axis, is balance.

# %%
down = by_epoch(
    lambda m, c: 100 * float(m.lowered[c].sum() / (m.lowered[c].sum() + m.lifted[c].sum()))
)
show(
    sweeps(epochs, "epoch", down, "downward part of the push (%)", doubling=True),
    "01_penalty",
    "Downward part of all that pushes the logits of each group, by epoch, for each network.",
    folder,
    about_runs(*trained.values()),
)

# %%
rows = []
for name, runs in through.items():
    for place, epoch in ((0, "before training"), (-1, "at the end")):
        cells = []
        for c in data.groups.values():
            pushes = [
                (run[place].lowered[list(c)].sum(), run[place].lifted[list(c)].sum())
                for run in runs
            ]
            cells.append(mean_and_spread([float(down / up) for down, up in pushes if up > 0], 2))
        rows.append([f"{networks[name][0].label}, {epoch}", *cells])
table(["penalty for one unit of lift", *data.groups], rows, "Of the first three seeds at most.")

# %% [markdown]
# Before training CE gives every class about the same probability, so that the counts make the
# penalty: there the paper is right. But the gradient of a bias *is* penalty minus lift. After some
# epochs the network has learned the prior (notebook 0), and the two come nearer to balance: the
# table says how near, with the spread of few seeds.

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. *Predict, then measure.* At which lead has a tail image ($r = 15$) the mean gradient that an
#    image without a cloud has at 5? Use `expected_binary_gradient`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# At 14.3: 9.3 further units, not 15, as most $|\varepsilon|$ are far below 1.
#
# ```python
# fine = torch.linspace(0, 20, 2001)
# tail, without = expected_binary_gradient(fine, 15.0), binary_gradient(torch.tensor(5.0))
# fine[(tail - without).abs().argmin()]
# ```
#
# </details>

# %% [markdown]
# 2. Set `threshold` to 0.1 and to 0.001. Which statements about the order of groups and of networks
#    survive both?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell below has the shares at the end. What does not change with the threshold is a finding;
# the rest is a choice.
#
# </details>

# %% tags=["solution", "hide-cell"]
rows = []
for limit in (0.1, 0.01, 0.001):
    for name in ("ce", "no_cloud", "plain"):  # one label an image
        found = saturation(trained[name][0], cloud=True, threshold=limit)
        cells = [100 * float(found.active[list(c)].mean()) for c in data.groups.values()]
        rows.append([f"{limit:g}, {networks[name][0].label}", *(f"{cell:.0f}" for cell in cells)])
table(["active (%), seed 0", *data.groups], rows)

# %% [markdown]
# 3. Half the epochs (`preset="short"`) leave more gradient. Does that help the tail? Predict first.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Compare the few-shot accuracy of both runs. A large gradient says that an image is not learnt yet;
# only what the gradients add up to over the epochs is worth something.
#
# </details>

# %% [markdown]
# ## Summary
#
# The softmax lets go of an image a few units beyond the boundary: the figures say of which class
# first, and how many stay with mixup. The cloud is a wide random margin, and training moves the
# images beyond it. With CE the penalty of Sec. 3.3 is what training starts with more than what it
# ends with.

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Sec. 3.
# - B. Chen, W. Deng, J. Du. *Noisy Softmax: Improving the Generalization Ability of DCNN via
#   Postponing the Early Softmax Saturation.* CVPR 2017.
# - H. Zhang et al. *mixup: Beyond Empirical Risk Minimization.* ICLR 2018.
