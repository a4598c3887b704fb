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
# room than the head classes; its Fig. 3 compares such maps for CE and GCL. Of the training images
# it calls the map of GCL "more scattered" and "much easier to separate", of the test images it says
# that the region where classes mix is larger under CE. t-SNE maps persuade, but their distances and
# areas have no meaning. So we draw them, and put beside them numbers taken in the space itself: the
# spread of each class, the angle between class anchors, and how often neighbours disagree. And
# since the argument of its Fig. 2, that the cloud reserves a margin for the tail, is drawn in two
# dimensions, we train a network whose features *have* two dimensions: there a picture is the
# embedding itself, with every angle and every cloud to scale.
#
# Afterwards you can
#
# - say which part of the paper's picture holds on these data, and which does not;
# - tell what in a t-SNE map stays when perplexity and network change, and what does not;
# - compute where the cloud puts the boundary between two classes, and use `GCLLoss` in a training
#   loop of your own.

# %% [markdown]
# ## Parameters
#
# By itself and from nothing this notebook takes 95 seconds and 2.0 GB of memory on two cores.
#
# `seed` is the run that is drawn; the numbers are over `seeds` runs. With the defaults most runs
# are those of notebook 3, and are only read if they are there. `points` bounds the images in a map:
# t-SNE of ten thousand takes minutes. The networks with two features are trained here, on three of
# the small digits whatever the data set, in about a second each.

# %% tags=["parameters"]
dataset: str = "digits"  # digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH
imbalance_ratio: float = 100.0  # n_max / n_min of the training images; 0: data as they are
preset: str = ""  # digits, official, paper, short or smoke; empty: the data set's own
seed: int = 0  # the run that the maps show, below seeds
seeds: int = 5  # runs of each method, from seed 0 on
perplexity: float = 30.0  # of t-SNE: about how many neighbours each point tries to keep
perplexities: str = "5,30,100"  # three to compare, of maps of the test images
points: int = 1000  # images in a map, at most
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.course.notebook import checked_parameters, numbers_in, project_path

p = checked_parameters(globals(), minimum={"seeds": 1, "points": 10, "workers": 0})
perplexities = numbers_in("perplexities", p.perplexities, low=1)
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here. `embedding` and `planar` have the measures of this notebook,
# `figures` and `planar_figures` the pictures.

# %%
import torch

from gcl_core import GCLLoss, cloud_sizes
from gcl_core.analysis import embedding, gaussian
from gcl_core.analysis import planar_network as planar
from gcl_core.course.interaction import Choice, explore
from gcl_core.course.notebook import protocol, run_variants, show, table, watched_epochs
from gcl_core.figures.charts import embedding_maps, headline, values_by_class
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.planar_maps import Trained, planes
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.losses.priors import LogitAdjustedLoss
from gcl_core.results.tables import mean_and_spread

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
# these maps alone we would not say that the second network separates them much better.
#
# ## Which features of a map stay?
#
# Before believing a map, look at others of the same network (Wattenberg et al. 2016). Of
# the paper's maps we know neither perplexity nor seed. Here are the test images under CE at three
# perplexities, and then, at the middle one, three networks of GCL that were trained with other
# seeds, on other draws of the images. Two numbers go with them. With $x_i$ the place of test image
# $i$ of $N$ in the map, and $N_j$ of them in class $j$, the *room* of a class is its radius in the
# map, in units of the radius of the whole map,
#
# $$R_j^2 = \frac{\frac{1}{N_j}\sum_{i: y_i = j} \lVert x_i - c_j\rVert^2}
# {\frac1N\sum_i \lVert x_i - c\rVert^2},$$
#
# with centres $c_j$ of the class and $c$ of all; "squeezed" would mean that the tail has less of it
# than the head. The *trustworthiness* is 1 if all neighbours in the map are neighbours in the space
# (Venna and Kaski 2001), and about one half if the map is random.

# %%
stability, rows = {}, []
for name in ("ce", "gcl"):
    tested = [embedding.features_of(run) for run in trained[name][:3]]
    kept = [embedding.thinned(labels, p.points) for _, labels in tested]
    tested = [(f[i], y[i]) for (f, y), i in zip(tested, kept, strict=True)]
    for perplexity in perplexities:
        tail, head, trust = [], [], []
        for seed, (f, y) in enumerate(tested):
            positions = embedding.tsne(f, perplexity=min(perplexity, (len(f) - 1) / 3))
            stability[name, perplexity, seed] = positions, y
            room = 100 * embedding.room(positions, y, data.num_classes)
            tail.append(embedding.group_means(room, data.groups)["few"])
            head.append(embedding.group_means(room, data.groups)["many"])
            trust.append(embedding.neighbours_kept(f, positions))
        cells = [mean_and_spread(values) for values in (head, tail)]
        title = f"{METHOD_LOOKS[name].label}, perplexity {perplexity:g}"
        rows.append([title, *cells, f"{min(trust):.3f}"])

# %%
middle = perplexities[len(perplexities) // 2]
show(
    embedding_maps(
        data,
        {f"CE, perplexity {x:g}": stability["ce", x, 0] for x in perplexities}
        | {f"GCL, run {seed}": stability["gcl", middle, seed] for seed in range(len(tested))},
        columns=3,
        size=2.7,
    ),
    "05_stability",
    "t-SNE maps of test features: CE at three perplexities, and below three networks of GCL;"
    " arrangement and sizes change, the head classes stay apart and the tail stays mixed.",
    folder,
    {"perplexities": perplexities, **about_runs(trained["ce"][:1], trained["gcl"][:3])},
)

# %%
header = ["", "room of many-shot classes (% of the map's radius)", "of few-shot"]
header += ["lowest trustworthiness"]
table(header, rows, f"Maps of test images; {protocol(trained['ce'][:3])}.")

# %% [markdown]
# **What to notice.** Six maps, and all of them are good ones by the last number: their neighbours
# are neighbours in the space. What they agree on is who lies beside whom: 8 and 9 beside each other
# and among medium ones, 0 and 2 apart from all. Everything else differs: arrangement, shape and
# size. At perplexity 30 the head has the same room under both networks (18 and 20 % of the map's
# radius), at 100 almost twice as much under GCL (33 against 18 %): from the same features, two
# different answers. "More scattered" is a statement about sizes, and so not one that a t-SNE map
# can carry.
#
# One thing can be said of the room all the same, since it holds in each of the 18 maps: with
# equally many test images in each class the tail has *more* room than the head, not less, under
# both networks. In maps of the training images it looks small because it has few of them.
#
# ## Numbers beside the pictures
#
# On unit features $f_i$ and unit anchors $w_j$ (the rows of the classifier):
#
# - **spread** of a class: the mean angle between its test features and their mean direction;
# - **anchor angle**: from its anchor to the nearest other one. If ten anchors are all equally far
#   apart, it is at most $\arccos(-1/9) = 96.4°$;
# - **overlap**: the share of the 10 nearest neighbours of its test images that have another label.
#
# The first and the last need the balanced *test* set: on training images a class of one image has
# no spread, and one of five cannot have ten neighbours of its own.

# %%
compared = ["ce", "ce_mixup", "no_cloud", "gcl"]
classes = data.num_classes
numbers = {"Spread (degrees)": {}, "Anchor angle (degrees)": {}, "Overlap (%)": {}}
for name in compared:
    features = [embedding.features_of(run) for run in trained[name]]
    anchors = [embedding.class_anchors(run) for run in trained[name]]
    for title, rows in {
        "Spread (degrees)": [embedding.angular_spread(f, y, classes) for f, y in features],
        "Anchor angle (degrees)": [embedding.nearest_anchor_angles(w) for w in anchors],
        "Overlap (%)": [100 * embedding.overlap(f, y, classes) for f, y in features],
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
    for title, by_name in numbers.items()
    for name in compared
] + [
    [f"Accuracy (%): {METHOD_LOOKS[name].label}"]
    + [mean_and_spread([run.result[group] for run in trained[name]]) for group in data.groups]
    for name in compared
]
table(["", *data.groups], rows, f"Test images; {protocol(trained['gcl'])}.")

# %% [markdown]
# From CE to GCL there are three steps: mixup, the cosine classifier with its scale, and the cloud.
# What each of them does to the overlap, seed by seed:

# %%
steps = {
    "mixup": ("ce", "ce_mixup"),
    "cosine": ("ce_mixup", "no_cloud"),
    "cloud": ("no_cloud", "gcl"),
}
overlaps = numbers["Overlap (%)"]
rows = []
for step, (before, after) in steps.items():
    pairs = zip(overlaps[before], overlaps[after], strict=True)
    changes = [embedding.group_means(b - a, data.groups) for a, b in pairs]
    rows.append([step, *(mean_and_spread([c[g] for c in changes]) for g in data.groups)])
table(["overlap (%), change by", *data.groups], rows, protocol(trained["gcl"]))

# %% [markdown]
# **What to notice.**
#
# - *Overlap.* Under CE more than a quarter of the neighbours of a few-shot image have another
#   label, under GCL fewer than a fifth. Most of that step is mixup's, 6.1 ± 3.7 points; 4.2 ± 2.6
#   are the cloud's, and it has them on each of the five seeds; the cosine classifier's part cannot
#   be told from nothing.
# - *Spread.* The tail is not squeezed in angle: under CE its test features are spread more widely
#   than those of the head. They lie in the wrong places, not in too small a place. The cosine
#   classifier makes every class tighter; the cloud widens the few-shot ones again, by one or two
#   degrees.
# - *Anchors.* Under CE the anchors of the tail are nearer to their neighbours than those of the
#   head, more so with mixup. With the cosine classifier the angles differ too much between seeds
#   (in some, anchors are less than 50 degrees apart) to say anything of head against tail, or of
#   the cloud.
# - *Accuracy.* What the cloud does add is few-shot accuracy, far more than purer neighbourhoods
#   would explain: rare images come to lie on the right side of the boundary. Whether it is the
#   boundary that moves or the features, the next section measures.
#
# ## Two dimensions: the picture is the embedding
#
# "As shown in Fig. 2", the paper says, "the tail class samples can be pushed
# more away from the class boundary". With features in the plane, $f \in \mathbb R^2$, that can be
# seen without any map, and measured. The direction of a
# feature is one angle $\varphi$, that of an anchor one angle $\alpha_j$, and
#
# $$\cos\theta_j = \cos(\varphi - \alpha_j).$$
#
# The nearest anchor wins, so the boundary of two neighbours $i$ and $j$ is their bisector, and each
# class owns an arc of the circle, which reaches half-way to the next anchor on either side. The
# *share* of
# the circle that a class owns is exactly the room that the classifier leaves it. In training the
# cloud moves the boundary: from $\cos\theta_i - k\delta_i|\varepsilon_i| = \cos\theta_j -
# k\delta_j|\varepsilon_j|$ follows
#
# $$2 \sin h\; \sin(\bar\varphi_{ij} - \varphi) = k\,\delta_i |\varepsilon_i| -
# k\,\delta_j |\varepsilon_j|, \qquad \bar\varphi_{ij} = \frac{\alpha_i + \alpha_j}{2},\;
# h = \frac{\alpha_j - \alpha_i}{2}.$$
#
# With three anchors at equal angles ($h = 60°$) and $k = 1$, the paper's formula, a full cloud of
# the rarest class moves its boundary by $\arcsin(1/\sqrt 3) = 35.3°$ into its own arc, the mean
# cloud by 8.8°.
#
# The network: 64 pixels, 64 ReLU, 2 features, and anchors that start at equal angles, trained on
# 120 threes, 30 fives and 8 nines. `train_plane` is a plain loop, without mixup and augmentation
# and with all images in one batch; its heart is what `GCLLoss` takes in any loop:
#
#     loss = criterion(head(features(images)), labels)  # head: a CosineClassifier
#     optimizer.zero_grad()
#     loss.backward()
#     optimizer.step()
#
# Three losses on the same cosines and initial weights: no cloud (CE
# here is *cosine* CE, so that nothing else differs), GCL, and a margin that is fixed at the mean of
# the cloud, which is logit adjustment with the $\tau_{\mathrm{eff}}$ of notebook 2. The scale is
# $s = 10$: at the published 30 CE leaves training images of the tail wrong in some seeds (exercise
# 3).

# %%
sets = [planar.few_digits(seed) for seed in range(p.seeds)]
counts, scale, k = planar.COUNTS, 10.0, 1.0
tau = gaussian.matched_tau(counts, scale, k)
epochs = watched_epochs(200)
plane = {"CE": [], "Fixed margin": [], "GCL": []}
for seed, digits in enumerate(sets):
    generator = torch.Generator().manual_seed(seed)
    for name, criterion in {
        "CE": GCLLoss(counts, scale=scale, noise_multiplier=0),
        "Fixed margin": LogitAdjustedLoss(counts, tau=tau, scale=scale),
        "GCL": GCLLoss(counts, scale=scale, noise_multiplier=k, generator=generator),
    }.items():
        plane[name].append(planar.train_plane(digits, criterion, seed=seed, keep=epochs))

# %%
clouds = (k * cloud_sizes(counts)).tolist()
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
    "Features of three digits in the plane with anchors, arcs and boundaries, for CE, a fixed"
    " margin and GCL; the cloud of a class is a fan at both ends of its arc.",
    folder,
    epoch=Choice("Epoch", epochs[-1], epochs),
)

# %% [markdown]
# Dots are training images, pale crosses test images, with the accuracy of each class at the rim.
# Directions are true; lengths are in units of the median in each panel, and what is longer than the
# rim is drawn on it. A
# solid line is the boundary of the classifier; a dashed one is the boundary in training, at the
# mean of the cloud; the fans are the clouds, as dense as $|\varepsilon|$ is likely. Move the
# slider, in a live notebook, through the recorded epochs; here are three of them.

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
        size=2.5,
    ),
    "05_plane_by_epoch",
    "The same embeddings at three epochs, CE above and GCL below: the head is separated first,"
    " the tail crosses into its arc late, and further under GCL.",
    folder,
    {"seed": p.seed, "epochs": chosen, "scale": scale, "noise_multiplier": k},
)

# %% [markdown]
# **What to notice.** Both networks start from the same weights, with all classes all over the
# plane. At epoch 14 threes and fives are in their arcs, and the nines are with the threes, which
# they look like: 2 % of their test images are right under CE, 12 % under GCL. The nines separate
# last. At the end every training image is in its arc, but under CE the eight nines stop 16 to 46
# degrees inside of the boundary to the threes, half of them within 21, where at $s = 10$ hardly any
# gradient is left; the test images scatter across it. Under GCL most training nines stand beyond
# the fan. The arrows have turned by 6 to 14 degrees, and each class still owns about a third of the
# rim: it is the *features* that make room.
#
# How far do the classes stand from the boundary, and who owns how much? The *angle to the boundary*
# is the smaller of the angles from a feature to the two ends of its class's arc, negative outside
# of it; its median over a class says where the class stands.

# %%
measures = {}
for name, runs in plane.items():
    for digits, at in zip(sets, (run[epochs[-1]] for run in runs), strict=True):
        w, y, n = at.anchors, digits.test_labels, len(counts)
        to_boundary = planar.angles_to_boundary(at.train, digits.train_labels, w)
        for title, values in {
            "share of the circle (%)": 100 * planar.circle_shares(w),
            "nearest other anchor (degrees)": embedding.nearest_anchor_angles(w),
            "spread of test images (degrees)": embedding.angular_spread(at.test, y, n),
            "training images to the boundary (degrees)": planar.class_medians(
                to_boundary, digits.train_labels, n
            ),
            "test images to the boundary (degrees)": planar.class_medians(
                planar.angles_to_boundary(at.test, y, w), y, n
            ),
            "test accuracy (%)": planar.class_accuracies(at.test, y, w),
        }.items():
            measures.setdefault(title, {}).setdefault(name, []).append(values.tolist())

# %%
header = ["", *(f"{d}: {n} images" for d, n in zip(planar.DIGITS, counts, strict=True))]
rows = [
    [f"{title}: {name}", *(mean_and_spread(list(each)) for each in zip(*values, strict=True))]
    for title, by_name in measures.items()
    for name, values in by_name.items()
]
table(header, rows, f"Three digits, 50 test images of each, {epochs[-1]} epochs; seeds: {p.seeds}.")

# %% [markdown]
# **What to notice.**
#
# - *Nobody is squeezed by the classifier.* The nines own 31 to 32 % of the circle under all three
#   losses, a third being fair. Nor are they squeezed in spread: their test images are the most
#   widely spread of all, and neither loss changes that beyond its deviation. Under CE their anchor
#   comes nearer to the next one, 95.5 ± 16.4 degrees where all began with 120; in two dimensions
#   this costs them little of the circle, as the other side opens.
# - *The margin is there, and it can be read off in degrees.* Half of the training nines stand
#   within 26° of the boundary under CE, within 41° with the fixed margin and 45° under GCL. This is
#   the paper's Fig. 2, and it holds. What it costs the head is 3 to 4 degrees, within the
#   deviation.
# - *A margin for training images is a margin for test images, but a smaller one:* 14°, 27° and 29°,
#   and with it the accuracy of the nines rises from 68 to 87 %.
# - *It is the mean of the cloud that does it.* Fixed margin and GCL have the same accuracy on the
#   nines. Where the randomness does matter is exercise 4.
#
# Is this picture robust? Over ten seeds the nines have 74.8 ± 13.1, 88.2 ± 6.3 and 89.8 ± 6.5 %,
# and no class is lost; the worst is 54 %, under CE. It is not robust against everything. Two
# dimensions leave a feature only two ways around the circle, and a class on the wrong side of
# another one has to go through it. With anchors that start at random, one of ten seeds loses a
# class under each loss (under CE 12 % of the nines are right, under the other two none of the
# fives), and in batches of 16 images GCL loses the nines of one seed (18 %). We put this down to
# the two dimensions, not to the tail.
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
# 1. Measure `overlap` with `k=3` and `k=30`. Does the order of the networks depend on it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Not in the few-shot classes: 17.3, 13.1, 11.4 and 9.2 % for CE, CE with mixup, no cloud and GCL
# with 3 neighbours, and 41.0, 35.8, 34.3 and 28.7 % with 30. In the many-shot classes it does: CE
# has the most at 3 (2.6 against 2.0 % for GCL) and the fewest at 30 (6.3 against 10.0 %). With 50
# test images in a class, 30 neighbours ask whether the whole class lies together, 3 only whether it
# is locally pure.
#
# </details>

# %% [markdown]
# 2. The anchors of `gcl_crt` were trained again on balanced batches. Predict whether the tail's
#    angle to the nearest anchor grows, then measure it with `class_anchors`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Balanced batches should push the tail's anchors away from their neighbours, and the angle of the
# few-shot classes does grow, by 1.3 ± 1.6 degrees seed by seed (many 0.1 ± 0.4, medium 0.2 ± 0.3):
# in the predicted direction, within its spread. Stage 2 goes on from the anchors of stage 1 at a
# fiftieth of the learning rate, so they turn little: those of the head by less than 2 degrees, of
# class 8 by 2.5 to 5.3, of class 9 by 3.9 to 7.2; yet few-shot accuracy rises by more than ten
# points. Where a boundary lies matters more than how wide the angle is.
#
# </details>

# %% [markdown]
# 3. CE in the plane with the published scale, $s = 30$: predict what changes for the nines, whose
#    training images are all right at $s = 10$ in most seeds. Measure it over ten seeds, on training
#    and test images. Does GCL suffer in the same way?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# A larger scale saturates the softmax at a smaller angle: an image a few degrees inside of its arc
# gives no gradient any more, and one far on the wrong side gives the full one, but the head has
# settled by then and its anchor is not going to move. Under CE the nines fall to 70.2 ± 24.2 %
# (74.8 ± 13.1 at 10): in two of ten seeds training images stay wrong, and in one of them 14 % of
# the test images are right, with the anchors of fives and nines 4 degrees apart. GCL has 90.0 ± 9.3
# % (89.8 ± 6.5) and all training images right. Is that the reduced saturation which the paper
# means? Hardly: a fixed margin of the same mean (`LogitAdjustedLoss` at the matched τ) has 87.4 ±
# 6.7 % and all training nines right as well; it loses a training three or two in four of the ten
# seeds. So it is the margin that rescues the nines, and the randomness makes it easier to bear.
#
#     for seed in range(10):
#         digits = planar.few_digits(seed)
#         criterion = GCLLoss(counts, scale=30, noise_multiplier=0)
#         at = planar.train_plane(digits, criterion, seed=seed)[200]
#         print(planar.class_accuracies(at.train, digits.train_labels, at.anchors))
#         print(planar.class_accuracies(at.test, digits.test_labels, at.anchors))
#
# </details>

# %% [markdown]
# 4. With $k = 4$, where would a full cloud put the boundary of the nines, and where does the margin
#    that is fixed at its mean? Predict which of the two losses the head can bear, then train both.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Nowhere: cosines to two anchors 120° apart differ by at most $2 \sin 60° = 1.73 < 4$. The mean
# shift is $4 \cdot 0.2657 = 1.06$, which is $\arcsin(1.06/1.73) = 37.9°$ into an arc of 120°, and
# the fixed margin asks for that in every step. The loss then counts 38° of the nines' arc as the
# threes', so a three may stand where the classifier calls it a nine: over the five seeds 84.8 ±
# 10.2, 90.4 ± 6.8 and 93.6 ± 7.5 % for threes, fives and nines, and some training images are wrong
# in every seed. GCL with the same mean has 97.2 ± 1.8, 98.0 ± 2.0 and 89.2 ± 5.0 %, and all
# training images are right. Half of its clouds move the boundary by less than 31°, a quarter by
# less than 14°: against a three in the disputed part they push in some steps only, and in the
# others its own gradient wins (a conjecture, not measured). The randomness makes a margin that is
# far too large harmless; at $k = 1$ there was nothing to make harmless.
#
# </details>

# %% [markdown]
# ## Summary
#
# t-SNE keeps neighbours and nothing else, so a class that looks squeezed may only have few points;
# on balanced test images the tail has more room than the head. In the space itself the tail is not
# squeezed either, but misplaced: mixed with its neighbours, less so with mixup, and less again with
# the cloud. In two dimensions the margin of the paper's Fig. 2 can be
# measured in degrees: GCL moves the training images of the tail away from the boundary, not the
# boundary, and a fixed margin of the same mean does nearly the same.
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733), Fig. 1 to 3, Sec.
#   4.5.1.
# - L. van der Maaten, G. Hinton. *Visualizing Data using t-SNE.* JMLR 9, 2008.
# - J. Venna, S. Kaski. *Neighborhood Preservation in Nonlinear Projection Methods: An Experimental
#   Study.* ICANN 2001 (trustworthiness).
# - M. Wattenberg, F. Viégas, I. Johnson. *How to Use t-SNE Effectively.* Distill, 2016.
