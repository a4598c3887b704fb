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
# # 5. The embedding: is the tail squeezed, and does GCL give it room?
#
# The *embedding* is where a network puts its features. Cross-entropy (CE) squeezes the room of the
# tail in it, says the paper (Fig. 1, 2), and the cloud gives it back. **How much room has each
# class, in the network itself?**
#
# Afterwards you can measure the room that a network leaves each class, say what of a t-SNE map is
# evidence, and compute where a cloud puts a boundary.

# %% [markdown]
# ## Parameters
#
# `seed` is the run that is drawn; numbers are over `seeds` runs. The networks with two features see
# three of the small digits, whatever the data set.

# %% tags=["parameters", "hide-input"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seed: int = 0  # the run that the maps show, below seeds
seeds: int = 5  # runs of each method, from seed 0 on
plane_seeds: int = 10  # runs of each network with two features
perplexity: float = 30.0  # of t-SNE: about how many neighbours each point tries to keep
perplexities: str = "5,30,100"  # three to compare, of maps of the test images
points: int = 1000  # images in a map, at most
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, numbers_in, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "plane_seeds": 1, "points": 10, "workers": 0}
)
perplexities = numbers_in("perplexities", p.perplexities, low=1)
folder = project_path(p.figures)

# %% tags=["hide-input"]
import torch

from gcl_core import GCLLoss, cloud_sizes
from gcl_core.analysis import embedding, gaussian
from gcl_core.analysis import planar_network as planar
from gcl_core.analysis.intervals import detectable
from gcl_core.course.interaction import Choice, explore
from gcl_core.course.notebook import (
    JUDGED,
    judged,
    protocol,
    run_variants,
    show,
    table,
    watched_epochs,
)
from gcl_core.figures.charts import embedding_maps, headline, paired_gains, values_by_class
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.planar_maps import Trained, planes
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.losses.priors import LogitAdjustedLoss
from gcl_core.results.tables import mean_and_spread


# %% tags=["hide-input"]
def lines(names, values):
    """Means over seeds of values by class, with the look of each method."""
    return [over_seeds(METHOD_LOOKS[n], [row.tolist() for row in values[n]]) for n in names]


# %%
networks = {
    "ce": ("ce", {}),
    "ce_mixup": ("ce_mixup", {}),
    "no_cloud": ("gcl", {"noise_multiplier": 0}),
    "gcl": ("gcl", {}),
    "gcl_crt": ("gcl_crt", {}),
}
trained = run_variants(p, networks)
data = trained["ce"][p.seed].dataset
answers, room = {}, {}
for name, of in trained.items():
    confusions = [torch.tensor(run.result["confusion"]) for run in of]
    answers[name] = [100 * embedding.answer_shares(confusion) for confusion in confusions]
    room[name] = [100 * embedding.shares_between(run) for run in of]

# %%
shown = ["ce", "gcl", "gcl_crt"]
show(
    values_by_class(
        data,
        {
            "Answers to balanced test images (%)": lines(shown, answers),
            "Room between the test images (%)": lines(shown, room),
        },
    ),
    "05_room",
    "Share of each class in the answers to balanced test images, and in the space between them, for"
    " CE, GCL and GCL with cRT.",
    folder,
    about_runs(*(trained[name] for name in shown)),
)

# %% [markdown]
# Above: of equally many test images of each class, the share that is *taken for* class $j$. Below:
# a point half-way between the features of two test images of different classes, all pairs of
# classes alike; how often does the network answer $j$ there? A class that is not squeezed has $1/C$
# in both.

# %%
few = list(data.groups["few"])
fair = 100 * len(few) / data.num_classes
rows = []
for name in networks:
    cells = []
    for share in (answers, room):
        own, ce = ([float(row[few].sum()) for row in share[each]] for each in (name, "ce"))
        over = "" if name == "ce" else judged([a - b for a, b in zip(own, ce, strict=True)])
        cells += [mean_and_spread(own), judged([x - fair for x in own]), over]
    rows.append([METHOD_LOOKS[name].label, *cells])
against = ["minus fair", "minus CE"]
header = ["few-shot classes", "answers (%)", *against, "room (%)", *against]
table(header, rows, f"Fair: {fair:.0f} %. {protocol(trained['ce'])}. {JUDGED}.")

# %% [markdown]
# **What to notice.** This is the squeezed region, measured. *Answers* counts right and wrong ones:
# a class that is seldom answered cannot be found. *Room* asks where no image is: there a boundary
# may lie anywhere without making one training image wrong. Both depend on the classifier *and* the
# features. Is the room already lost in the features?

# %% [markdown]
# ## The features alone
#
# On unit features, where length plays no part:
#
# - **spread** of a class: mean angle between its test features and their mean direction;
# - **overlap**: share of the 10 nearest neighbours of its test images that have another label.
#
# Both are of *test* images: a class of one training image has no spread. Compare overlaps where the
# classes have as many test images each.

# %%
steps = ["ce", "ce_mixup", "no_cloud", "gcl"]
classes = data.num_classes
features = {name: [embedding.features_of(run) for run in trained[name]] for name in steps}
numbers = {
    "Spread (degrees)": {
        name: [embedding.angular_spread(f, y, classes) for f, y in of]
        for name, of in features.items()
    },
    "Overlap (%)": {
        name: [100 * embedding.overlap(f, y, classes) for f, y in of]
        for name, of in features.items()
    },
}
show(
    values_by_class(data, {title: lines(["ce", "gcl"], of) for title, of in numbers.items()}),
    "05_numbers",
    "Angular spread and neighbour overlap of each class, head to tail, for CE and GCL.",
    folder,
    about_runs(trained["ce"], trained["gcl"]),
)

# %% [markdown]
# From CE to GCL there are three steps: mixup, the cosine classifier with its scale, and the cloud.
# What each changes, seed by seed:

# %%
names = {"mixup": steps[:2], "cosine": steps[1:3], "cloud": steps[2:]}
rows = []
for title, of in numbers.items():
    for step, (before, after) in names.items():
        pairs = zip(of[before], of[after], strict=True)
        changes = [embedding.group_means(b - a, data.groups) for a, b in pairs]
        rows.append([f"{title}: {step}", *(judged([c[g] for c in changes]) for g in data.groups)])
table(["change by", *data.groups], rows, f"{protocol(trained['gcl'])}. {JUDGED}.")

# %% [markdown]
# **What to notice.** A tail that is squeezed *in the features* would have a small spread. A tail
# that lies among other classes has a large overlap. Which is it? And which step changes it? (Where
# features are given and only the classifier is trained, as on the clothes, none can.)

# %% [markdown]
# ## Are the tail's anchors pushed together?
#
# Every image pushes the *anchors* (weight vectors) of all other classes away, so those of the tail
# get "much more penalty than positive signals" (Sec. 3.3; notebook 1 measures both). What has that
# done to the anchors? A dot is, in one run, the mean angle between two anchors of the tail minus
# that between two of the head.

# %%
many = list(data.groups["many"])
blocks = {"head–head": (many, many), "head–tail": (many, few), "tail–tail": (few, few)}
angles = {}
for name, of in trained.items():
    matrices = [embedding.anchor_angles(embedding.class_anchors(run)) for run in of]
    angles[name] = {
        block: [float(a[one][:, other].nanmean()) for a in matrices]
        for block, (one, other) in blocks.items()
    }
apart = {
    METHOD_LOOKS[name].label: [
        tail - head for tail, head in zip(of["tail–tail"], of["head–head"], strict=True)
    ]
    for name, of in angles.items()
}
title = "Angle between two anchors: tail minus head"
show(
    paired_gains({title: apart}, "degrees"),
    "05_anchors",
    "Mean angle between anchors of the tail minus that of the head, one dot for each run, with mean"
    " and t interval, for five networks.",
    folder,
    about_runs(*trained.values()),
)

# %%
rows = []
for name, of in angles.items():
    gains = zip(of["tail–tail"], angles["ce"]["tail–tail"], strict=True)
    norms = [embedding.weight_norms(run) for run in trained[name]]
    lengths = mean_and_spread([float(n[few].mean() / n[many].mean()) for n in norms], 2)
    rows.append(
        [METHOD_LOOKS[name].label]
        + [mean_and_spread(values) for values in of.values()]
        + [judged([one - other for one, other in gains])]
        + [lengths if name in ("ce", "ce_mixup") else "not seen"]
    )
header = ["degrees", *blocks, "tail–tail − CE", "length of w, tail over head"]
table(header, rows, f"{protocol(trained['ce'])}. {JUDGED}.")

# %% [markdown]
# **What to notice.** With the angles of a simplex all classes would be $\arccos(-1/(C-1))$ apart.
# Left of the line the tail's anchors stand closer together than the head's. A cosine classifier
# sees no lengths; a linear one can also make the tail's weights short (notebook 4).

# %% [markdown]
# ## What stays of a t-SNE map
#
# t-SNE places images such that each keeps its nearest neighbours. It gives room to *points*, not to
# classes: a class of few points is small. With up to ten classes each point is its class's index.

# %%
maps = {
    f"{METHOD_LOOKS[name].label}: {split} images": embedding.map_of(
        trained[name][p.seed], split, points=p.points, perplexity=p.perplexity
    )
    for split in ("train", "test")
    for name in ("ce", "gcl")
}
drawn = about_runs(*(trained[name][p.seed : p.seed + 1] for name in ("ce", "gcl")))
show(
    embedding_maps(data, maps),
    "05_maps",
    "t-SNE maps of training and test features for CE and GCL; colours are the groups of classes.",
    folder,
    {"perplexity": p.perplexity, "points": p.points, **drawn},
)

# %% [markdown]
# Before believing a map, look at others of the same network. The *room* of a class here is its
# radius in the map, in units of the radius of the whole map; *trustworthiness* is 1 if all
# neighbours in the map are neighbours in the space (Venna and Kaski 2001).

# %%
stability, rows = {}, []
for name in ("ce", "gcl"):
    f, y = features[name][p.seed]
    kept = embedding.thinned(y, p.points)
    f, y = f[kept], y[kept]
    for perplexity in perplexities:
        positions = embedding.tsne(f, perplexity=min(perplexity, (len(f) - 1) / 3))
        title = f"{METHOD_LOOKS[name].label}, perplexity {perplexity:g}"
        stability[title] = positions, y
        radius = embedding.group_means(100 * embedding.room(positions, y, classes), data.groups)
        trust = embedding.neighbours_kept(f, positions)
        rows.append([title, *(f"{radius[g]:.0f}" for g in data.groups), f"{trust:.3f}"])
show(
    embedding_maps(data, stability, columns=3, size=2.9),
    "05_stability",
    "t-SNE maps of test features of CE and GCL at three perplexities: neighbours stay, arrangement"
    " and sizes change.",
    folder,
    {"perplexities": perplexities, **drawn},
)

# %%
table(["room in the map (%)", *data.groups, "trustworthiness"], rows, f"Run {p.seed}.")

# %% [markdown]
# **What to notice.** The *same* features have other sizes in each map. So no map can show that a
# class is "more scattered". It does show who lies beside whom.

# %% [markdown]
# ## Two dimensions: the picture is the embedding
#
# With features in the plane nothing has to be mapped. Each class owns an arc of the circle, which
# reaches half-way to the next anchor. In training the cloud moves the boundary of classes $i$ and
# $j$, with anchors at $\alpha_i$ and $\alpha_j$, to the angle $\varphi$ with
#
# $$2 \sin h\; \sin(\bar\varphi - \varphi) = k\,\delta_i |\varepsilon_i| - k\,\delta_j
# |\varepsilon_j|, \qquad \bar\varphi = \frac{\alpha_i + \alpha_j}{2},\; h = \frac{\alpha_j -
# \alpha_i}{2}.$$

# %% [markdown]
# A plain loop trains on 120 threes, 30 fives and 8 nines, with no mixup. Three losses on the same
# cosines and initial weights: no cloud, GCL, and a margin fixed at the mean of the cloud. The scale
# is $s = 10$ (exercise 2 has 30).

# %%
counts, epochs = planar.COUNTS, watched_epochs(200)
sets = [planar.few_digits(seed) for seed in range(max(p.plane_seeds, p.seed + 1))]


def plane_runs(number, scale=10.0, k=1.0):
    """Planes by epoch of each seed, for cosine CE, a margin of the cloud's mean, and GCL."""
    found = {"CE": [], "Fixed margin": [], "GCL": []}
    tau = gaussian.matched_tau(counts, scale, k)
    for seed, digits in enumerate(sets[:number]):
        generator = torch.Generator().manual_seed(seed)
        for name, criterion in {
            "CE": GCLLoss(counts, scale=scale, noise_multiplier=0),
            "Fixed margin": LogitAdjustedLoss(counts, tau=tau, scale=scale),
            "GCL": GCLLoss(counts, scale=scale, noise_multiplier=k, generator=generator),
        }.items():
            found[name].append(planar.train_plane(digits, criterion, seed=seed, keep=epochs))
    return found


plane = plane_runs(len(sets))

# %%
clouds = cloud_sizes(counts).tolist()
margins = [gaussian.cloud_moments()[0] * cloud for cloud in clouds]
shifts = {"CE": {}, "Fixed margin": {"margins": margins}}
shifts["GCL"] = {"margins": margins, "clouds": clouds}
explore(
    lambda epoch: planes(
        sets[p.seed],
        {
            f"{name}, epoch {epoch}": Trained(plane[name][p.seed][epoch], **shifts[name])
            for name in plane
        },
    ),
    "05_plane",
    "Directions of three digits in the plane with anchors, arcs and boundaries, for CE, a fixed"
    " margin and GCL; the cloud of a class is a fan at both ends of its arc.",
    folder,
    epoch=Choice("Epoch", epochs[-1], epochs),
)

# %% [markdown]
# Directions are true; a cosine classifier does not see lengths, and they only order the points
# within a ring. A solid line is the boundary of the classifier. A dashed one is that of training,
# at the mean of the cloud; fans are as dense as $|\varepsilon|$ is likely. At the rim: test
# accuracy.

# %% [markdown]
# The same at three epochs:

# %%
chosen = [epochs[0], epochs[6], epochs[-1]]
show(
    planes(
        sets[p.seed],
        {
            f"{name}, epoch {epoch}": Trained(plane[name][p.seed][epoch], **shifts[name])
            for name in ("CE", "GCL")
            for epoch in chosen
        },
        size=2.2,
    ),
    "05_plane_by_epoch",
    "The same embeddings at three epochs, CE above and GCL below.",
    folder,
    {"seed": p.seed, "epochs": chosen},
)

# %% [markdown]
# The *angle to the boundary* is the smaller of the angles from a feature to the two ends of its
# class's arc, negative outside; its median says where a class stands.


# %%
def standing(found, j):
    """Four numbers of class j in each run, by title and loss."""
    made = {}
    for name, of in found.items():
        for digits, at in zip(sets, (run[epochs[-1]] for run in of), strict=False):
            w, y = at.anchors, digits.test_labels
            train, test = (
                planar.class_medians(planar.angles_to_boundary(f, t, w), t, len(counts))
                for f, t in ((at.train, digits.train_labels), (at.test, y))
            )
            for title, values in {
                "share of the circle (%)": 100 * planar.circle_shares(w),
                "training images to the boundary (degrees)": train,
                "test images to the boundary (degrees)": test,
                "test accuracy (%)": planar.class_accuracies(at.test, y, w),
            }.items():
                made.setdefault(title, {}).setdefault(name, []).append(float(values[j]))
    return made


# %%
def compared(made, title):
    """A row: means of the three losses, and two of them minus another, judged."""
    ce, fixed, gcl = made[title].values()
    pairs = ((gcl, ce), (gcl, fixed))
    gaps = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
    found = f"{detectable(gaps[1]):.1f}"
    return [title, *map(mean_and_spread, (ce, fixed, gcl)), *map(judged, gaps), found]


# %%
made = standing(plane, 2)
header = [f"nines ({counts[2]} images)", *plane, "GCL − CE", "GCL − fixed margin"]
header += ["found four times in five"]
caption = f"{len(sets)} seeds, {epochs[-1]} epochs. {JUDGED}. Last column: GCL − fixed margin."
table(header, [compared(made, title) for title in made], caption)

# %% [markdown]
# **What to notice.** The share of the circle is what the classifier leaves the nines, a third being
# fair; the angles are the paper's Fig. 2 in degrees. The last columns answer what the randomness
# adds to its mean: where an interval has zero in it, a gain of more than the last column would most
# likely have been seen.

# %% [markdown]
# ## The study in one figure

# %%
show(
    headline(
        data,
        lines(("ce", "gcl_crt"), answers),
        [
            over_seeds(METHOD_LOOKS[n], [run.result["per_class"] for run in trained[n]])
            for n in ("ce", "gcl_crt")
        ],
    ),
    "headline",
    "Training images of each class; how often it is the answer to balanced test images, and how"
    " many of its own are right, for CE and for GCL with cRT.",
    folder,
    about_runs(trained["ce"], trained["gcl_crt"]),
    dark=True,
)

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. Measure `overlap` with `k=3` and `k=30`. Does the order of the networks depend on it? What does
#    each ask?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Three neighbours ask whether a class is locally pure, as many as there are test images of a class
# whether all of it lies together.
#
# </details>

# %% tags=["solution", "hide-cell"]
rows = [
    [f"{METHOD_LOOKS[name].label}, k = {k}"]
    + [
        mean_and_spread(
            [float(100 * embedding.overlap(f, y, classes, k)[list(c)].nanmean()) for f, y in of]
        )
        for c in data.groups.values()
    ]
    for k in (3, min(30, len(features["ce"][0][1]) - 1))
    for name, of in features.items()
]
table(["overlap (%)", *data.groups], rows)

# %% [markdown]
# 2. The published scale is $s = 30$. Predict what changes for the nines under CE, and whether GCL
#    suffers in the same way. Is it the randomness that helps?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# A larger scale saturates the softmax at a smaller angle: an image a few degrees inside its arc
# gives no gradient. Any margin acts against that: compare GCL with the fixed one.
#
# </details>

# %% tags=["solution", "hide-cell"]
made = standing(plane_runs(5, scale=30.0), 2)
caption = f"Scale 30, {min(5, len(sets))} seeds."
table(header, [compared(made, title) for title in made], caption)

# %% [markdown]
# 3. With $k = 4$, where would a full cloud put the boundary of the nines, and where the margin of
#    its mean? Predict which of the two losses the *head* can bear, then train both.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Nowhere: cosines to two anchors 120° apart differ by at most $2 \sin 60° = 1.73 < 4$. The mean
# shift is $4 \cdot 0.2657 = 1.06$, which is $\arcsin(1.06/1.73) = 37.9°$ into an arc of 120°, and
# the fixed margin asks for that in every step: a three may stand where the classifier calls it a
# nine. The cloud asks for it in some steps only. The table is of the threes.
#
# </details>

# %% tags=["solution", "hide-cell"]
made = standing(plane_runs(5, k=4.0), 0)
header[0] = f"threes ({counts[0]} images)"
caption = f"k = 4, {min(5, len(sets))} seeds."
table(header, [compared(made, title) for title in made], caption)

# %% [markdown]
# ## Summary
#
# *Squeezed* can mean three things: few answers and little room at the classifier, a narrow cluster
# in the features, or a small patch in a map. Only the first two can be measured, and the tables
# above have them. In the plane the margin of Fig. 2 is an angle, and one sees whether the boundary
# moves, or the features.

# %% [markdown]
# ## References
#
# - M. Li et al. *GCL.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Fig. 1 to
#   3, Sec. 3.3, 4.5.1.
# - L. van der Maaten, G. Hinton. *Visualizing Data using t-SNE.* JMLR 9, 2008.
# - J. Venna, S. Kaski. *Neighborhood Preservation in Nonlinear Projection Methods.* ICANN 2001.
# - M. Wattenberg, F. Viégas, I. Johnson. *How to Use t-SNE Effectively.* Distill, 2016.
