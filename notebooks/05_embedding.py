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
# # 5. The embedding: are tail classes squeezed, and does GCL spread them?
#
# The paper's Fig. 1 is a t-SNE map in which the tail classes of a cross-entropy network occupy less
# room than the head classes; its Fig. 3 compares such maps for CE and GCL on training and test
# images and calls those of GCL "more scattered" and "much easier to separate". t-SNE maps persuade,
# but their distances and areas have no meaning. So we draw them, and put beside them numbers taken
# in the space itself: the spread of each class, the angle between class anchors, and how often
# neighbours disagree.
#
# Afterwards you can say which part of the paper's picture holds on these data, and which does not.

# %% [markdown]
# ## Parameters
#
# `seed` is the run that is drawn; the numbers are over `seeds` runs. With the defaults most runs
# are those of notebook 3 and are only read. `points` bounds the images in a map: t-SNE of ten
# thousand takes minutes.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seed: int = 0  # the run that the maps show, below seeds
seeds: int = 5  # runs of each method, from seed 0 on
perplexity: float = 30.0  # of t-SNE: about how many neighbours each point tries to keep
points: int = 1000  # images in a map, at most
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.notebook import checked_parameters, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "points": 10, "workers": 0})
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here. `embedding` has the measures of this notebook, `figures` the
# pictures.

# %%
from gcl_core import embedding
from gcl_core.figures import (
    METHOD_LOOKS,
    about_runs,
    embedding_maps,
    headline,
    over_seeds,
    values_by_class,
)
from gcl_core.notebook import (
    protocol,
    run_variants,
    show,
    table,
)
from gcl_core.tables import mean_and_spread

# %% [markdown]
# ## Four networks
#
# The features are those of stage 1; stage 2 does not touch them. CE and GCL differ in three things
# at once: mixup, the cosine classifier with its scale of 30, and the cloud. Two more networks stand
# between them, so that a difference can be given to its cause: CE with mixup, and GCL with $k = 0$,
# which has everything but the cloud. GCL with cRT is there for the accuracies of the last figure.

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
print(data)

# %% [markdown]
# ## The maps
#
# A cosine classifier sees only the direction of a feature, so all features are first divided by
# their length, for the linear classifier too. t-SNE then places the images such that each keeps its
# nearest neighbours (it starts from the two principal components, with a fixed seed). Colours are
# the groups, and every point is drawn as the index of its class.

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
# **What to notice.** On the *training* images (above) most classes are clusters in both maps. The
# clusters of the tail are small, but that shows how few points they have: t-SNE gives room to
# points, not to classes. On the balanced *test* images (below) all classes have equally many
# points, and the paper's "obscure region" is there: the few-shot classes 8 and 9 run into each
# other and into the medium ones around them, under CE and, on this seed, under GCL as well. From
# these two maps alone we would not call the second one "much easier to separate". Numbers over
# seeds can say more.
#
# ## Numbers beside the pictures
#
# On unit features $f_i$ and unit anchors $w_j$ (the rows of the classifier):
#
# - **spread** of a class: the mean angle between its test features and their mean direction;
# - **anchor angle**: from its anchor to the nearest other one. Ten anchors can all be at most
#   $\arccos(-1/9) = 96.4°$ apart;
# - **overlap**: the share of the 10 nearest neighbours of its test images that have another label.
#
# The first and the last need the balanced *test* set: on training images a class of one image has
# no spread, and one of five cannot have ten neighbours of its own.

# %%
compared = ["ce", "ce_mixup", "no_cloud", "gcl"]
classes = data.num_classes
numbers = {"Spread (degrees)": {}, "Anchor angle (degrees)": {}, "Overlap": {}}
for name in compared:
    features = [embedding.features_of(run) for run in trained[name]]
    anchors = [embedding.class_anchors(run) for run in trained[name]]
    for title, rows in {
        "Spread (degrees)": [embedding.angular_spread(f, y, classes) for f, y in features],
        "Anchor angle (degrees)": [embedding.nearest_anchor_angles(w) for w in anchors],
        "Overlap": [embedding.overlap(f, y, classes) for f, y in features],
    }.items():
        numbers[title][name] = rows

panels = {
    title: [over_seeds(METHOD_LOOKS[n], [r.tolist() for r in rows]) for n, rows in by_name.items()]
    for title, by_name in numbers.items()
}
show(
    values_by_class(data, panels),
    "05_numbers",
    "Angular spread, angle to the nearest other anchor, and neighbour overlap of each class, head"
    " to tail, for four networks.",
    folder,
    about_runs(*trained.values()),
)

# %%
rows = [
    [f"{title}: {METHOD_LOOKS[name].label}"]
    + [
        mean_and_spread([embedding.group_means(row, data.groups)[group] for row in by_name[name]])
        for group in data.groups
    ]
    for title, by_name in (
        ("spread", numbers["Spread (degrees)"]),
        ("anchor angle", numbers["Anchor angle (degrees)"]),
        ("overlap (%)", {n: [100 * r for r in rs] for n, rs in numbers["Overlap"].items()}),
    )
    for name in compared
] + [
    [f"accuracy (%): {METHOD_LOOKS[name].label}"]
    + [mean_and_spread([run.result[group] for run in trained[name]]) for group in data.groups]
    for name in compared
]
table(["", *data.groups], rows, f"Test images; {protocol(trained['gcl'])}.")

# %% [markdown]
# **What to notice.**
#
# - *Overlap.* Under CE more than a quarter of the neighbours of a few-shot image have another
#   label, under GCL fewer than a fifth. But about half of that step is there with mixup alone, and
#   the cloud's own part (the third against the fourth row) is within the spread.
# - *Spread.* The tail is not squeezed in angle: under CE its test features are spread more widely
#   than those of the head. They lie in the wrong places, not in too small a place. The cosine
#   classifier makes every class tighter; the cloud widens the few-shot ones again, by about one
#   degree.
# - *Anchors.* Under CE the anchors of the tail are nearer to their neighbours than those of the
#   head, more so with mixup. With the cosine classifier the angles differ too much between seeds
#   (in some, anchors are less than 50 degrees apart) to say anything of head against tail, or of
#   the cloud.
# - *Accuracy.* What the cloud does add is few-shot accuracy, far more than purer neighbourhoods
#   would explain. On these data it moves the boundary, as a margin does, more than it mends the
#   embedding.
#
# ## The study in one figure
#
# How many images a class has, what that does to its accuracy under CE and under GCL with cRT (mean
# and standard deviation over the seeds), and the two embeddings of the test images.

# %%
show(
    headline(
        data,
        [
            over_seeds(METHOD_LOOKS[n], [run.result["per_class"] for run in trained[n]])
            for n in ("ce", "gcl_crt")
        ],
        {
            f"t-SNE of test images: {METHOD_LOOKS[n].label}": maps[
                f"{METHOD_LOOKS[n].label}: test images"
            ]
            for n in ("ce", "gcl")
        },
    ),
    "headline",
    "Training images by class; accuracy by class for CE and for GCL with cRT, which is far higher"
    " on the rare classes; t-SNE maps of the test features of both.",
    folder,
    about_runs(trained["ce"], trained["gcl_crt"]),
    dark=True,
)

# %% [markdown]
# ## Exercises
#
# Each asks for a prediction or a measurement.

# %% [markdown]
# 1. Run with `perplexity=5` and `perplexity=100`, then with another `seed`. Which features of the
#    maps stay? Which statement would you still make?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Sizes, shapes and places do not stay: at 5 even the head classes fall into pieces, at 100 the test
# images spread into one wide cloud, and each seed arranges the classes anew. What stays, under CE
# and GCL, is that the test images of the three head classes lie apart from all others, while the
# classes 8 and 9 lie among medium ones. That statement is about neighbours, and neighbours are what
# t-SNE keeps; "more scattered" is not.
#
# </details>

# %% [markdown]
# 2. Measure `overlap` with `k=3` and `k=30`. Does the order of the networks depend on it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Not in the few-shot classes: 17.3, 13.1, 11.4 and 9.2 % for CE, CE with mixup, no cloud and GCL at
# $k = 3$, and 41.0, 35.8, 34.3 and 28.7 % at $k = 30$. In the many-shot classes it does: CE has the
# most at 3 (2.6 against 2.0 % for GCL) and the fewest at 30 (6.3 against 10.0 %). With 50 test
# images in a class, 30 neighbours ask whether the whole class lies together, 3 only whether it is
# locally pure.
#
# </details>

# %% [markdown]
# 3. The anchors of `gcl_crt` were trained again on balanced batches. Predict whether the tail's
#    angle to the nearest anchor grows, then measure it with `class_anchors`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Balanced batches should push the tail's anchors away from their neighbours, and the angle of the
# few-shot classes does grow, by 1.3 ± 1.6 degrees seed by seed (many 0.1 ± 0.4, medium 0.2 ± 0.3):
# in the predicted direction, within its spread. Stage 2 goes on from the anchors of stage 1 at a
# fiftieth of the learning rate, so they hardly move; yet few-shot accuracy rises by more than ten
# points. Where a boundary lies matters more than how wide the angle is.
#
# </details>

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Fig. 1 and 3, Sec.
#   4.5.1.
# - L. van der Maaten, G. Hinton. *Visualizing Data using t-SNE.* JMLR 9, 2008.
# - M. Wattenberg, F. Viégas, I. Johnson. *How to Use t-SNE Effectively.* Distill, 2016.
