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
# # 8. How do you use this on your own data?
#
# You have a folder of images, one sub-folder for each class, and it is long-tailed because the
# world is: nobody has made it so. There are three ways from there. You can let the package train on
# the folder; you can take its loss and its sampler into a training loop of your own; and when it
# comes to choosing settings, you can describe many runs in one file and let a cluster of processes
# do them. This notebook goes all three on the same folder.
#
# Afterwards you can say what such a folder must look like, which mistakes with `GCLLoss` are
# refused and which ones pass without a word, why two loops with the same recipe agree only up to
# the spread over seeds, and how far a few held-out images can carry a choice.

# %% [markdown]
# ## Parameters
#
# As it stands the folder is a stand-in: scikit-learn's digits, made long-tailed and written as PNG
# files, because every reader has them offline. Your own takes its place by
#
# ```
# papermill notebooks/08_your_own.ipynb out.ipynb -p dataset folder:PATH \
#     -p image_size 32 -p flip True
# ```
#
# with ResNet-32 unless `network` says otherwise.
#
# By itself and from nothing this notebook takes 100 seconds and 3.4 GB of memory on two cores.
# Most of that is training that is reused when the notebook is run again.

# %% tags=["parameters"]
dataset: str = "digits"  # folder:PATH is your own; digits, cifar10: written as a folder first
imbalance_ratio: float = 20.0  # n_max / n_min of the stand-in; your own folder stays as it is
preset: str = "short"  # epochs: short has 60 + 30, official 200 + 30; paper, digits or smoke
network: str = ""  # resnet32 or digits_cnn; empty: digits_cnn for digits, else resnet32
image_size: int = 0  # pixels that images are resized to; 0: as they are, or one size for several
flip: bool = False  # whether a mirrored image is as likely: true of most photographs
seeds: int = 3  # runs of each variant, from seed 0 on
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %%
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "imbalance_ratio": 0, "image_size": 0, "workers": 0}
)
folder = project_path(p.figures)

# %% [markdown]
# The cell above checks the parameters: a name that is not in the list, a wrong type or a value out
# of range stops everything here. The first cell of imports below is what a loop of your own needs,
# and the second what this notebook needs to show it.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
import yaml
from IPython.display import Markdown
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

from gcl_core import CBENSampler, CosineClassifier, GCLError, GCLLoss
from gcl_core.course.notebook import paired_difference, protocol, run_variants, show, table
from gcl_core.course.terminal import terminal
from gcl_core.data.image_folder import split_image_folder, write_image_folder

# %%
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.figures.charts import dots, values_by_class
from gcl_core.figures.folder import folder_overview
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.grid.parquet import load_results
from gcl_core.methods.registry import resolve
from gcl_core.networks.models import build_network
from gcl_core.results.markdown import as_text
from gcl_core.results.tables import mean_and_spread
from gcl_core.training.evaluation import Tally

# %% [markdown]
# ## The folder
#
# An image folder has a part to train on and a part to test on, each with one sub-folder for each
# class, under the same names:
#
# ```text
# images/train/eight/00012.png        images/test/eight/00003.png
# images/train/five/...               images/test/five/...
# ```
#
# This is the layout of torchvision's `ImageFolder`, which reads it here too, so that **the classes
# are numbered by their names in alphabetical order**: the largest class is rarely class 0. Any
# format that Pillow reads will do, with 8 bits a channel. Every image becomes RGB; all are decoded
# once, cached, and kept in memory as bytes. The stand-in has its classes spelled out, so that their
# order is as arbitrary as yours.

# %%
scratch = tempfile.TemporaryDirectory(prefix="gcl-own-")
place = Path(scratch.name)
usual = resolve(p.dataset, preset=p.preset or None)
images, source = Path(p.dataset.removeprefix("folder:")).absolute(), p.dataset
if not source.startswith("folder:"):
    made = load_dataset(DataSettings(source, imbalance_ratio=p.imbalance_ratio or None))
    if source == "digits":
        names = "zero one two three four five six seven eight nine"
        made = replace(made, class_names=tuple(names.split()))
    images = write_image_folder(made, place / "images")
p.dataset, p.imbalance_ratio = f"folder:{images}", 0.0  # from here on any folder, as it is
own = {"network": p.network or usual.network, "flip": p.flip, "precision": usual.precision}
own |= {"image_size": p.image_size} if p.image_size else {}
data = load_dataset(DataSettings(p.dataset, imbalance_ratio=None, image_size=p.image_size or None))
print(data)

# %%
show(
    folder_overview(data),
    "08_folder",
    "Bars of the number of training images of each class, largest first, and an image of each.",
    folder,
    {"class_counts": data.class_counts},
)

# %% [markdown]
# **What to notice.** The printed counts are in the order of the names, the figure is in the order
# of size. `imbalance_ratio` is what was found: a folder is taken as it is unless a ratio is asked
# for. With fewer than 100 classes the three groups are by rank (30 %, 40 % and 30 % of the
# classes), from 100 on by the field's rule, more than 100 images and fewer than 20.
#
# What does not fit is refused in one line, before anything is trained. We write
# two images of each class as a small folder, break it in three ways and read what is said.

# %%
pick = torch.cat([(data.train.labels == j).nonzero()[:2, 0] for j in range(data.num_classes)])
few = data.train.subset(pick)
small = replace(data, train=few, test=few)
said = {}
for damage in ("no test part", "a class without images", "a file that is no image"):
    broken = write_image_folder(small, place / damage.replace(" ", "-"))
    first = broken / "train" / data.class_names[0]
    if damage == "no test part":
        (broken / "test").rename(broken / "elsewhere")
    elif damage == "a class without images":
        first.rename(broken / "elsewhere")
        first.mkdir()
    else:
        sorted(first.iterdir())[0].write_bytes(b"not an image")
    try:
        load_dataset(DataSettings(f"folder:{broken}"))
        said[damage] = "nothing"
    except GCLError as error:
        said[damage] = str(error).replace(str(place), "...")
Markdown("\n".join(f"- {what}: `{line}`" for what, line in said.items()))

# %% [markdown]
# **What to notice.** Each line names the place. Two cases come up most often. Images of different
# sizes are made one size, which is said together with how to choose another (`image_size`,
# `--image-size 32`); none is squashed, its middle is taken. And there may be *no test part*: the
# package then refuses to train, as it would
# have nothing to report that the network has not seen. It does not split for you either, because a
# split is a decision: near-copies (frames of one film, several photographs of one animal) have to
# stay on one side. Where images are independent, `split_image_folder(PATH, OUT)` copies a fifth of
# each class, at least one image, into `OUT/test`.
#
# ## Training on it
#
# On the command line this is
#
# ```
# python -m gcl_core train --dataset folder:images --method gcl_crt \
#     --preset short --network digits_cnn --flip no --precision float32
# ```
#
# and from Python `run_variants`, which trains one run for each seed, several at a time. We compare
# cross-entropy with GCL, without and with its second stage, in which the classifier is re-trained
# (cRT) on balanced batches. GCL's loss is the cross-entropy of
#
# $$z_j^\delta = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|),$$
#
# with the cosine of feature and class, a cloud size $\delta_j$ from 0 for the largest class to 1
# for the smallest, and Gaussian noise $\varepsilon_j$ (notebook 2). Everything that is not said is
# the published code's: scale $s = 30$ and noise multiplier $k = 0.5$ in stage 1, mixup (training on
# blends of two images), warm-up, ten times smaller steps after 80 % and 90 % of the epochs; in
# stage 2 $s = 20$, a margin that is taken from the target's cosine, and a focal factor that gives
# more weight to images with a large loss. The preset says how many epochs those are.

# %%
methods = ["ce", "gcl", "gcl_crt"]
trained = run_variants(p, {m: (m, own) for m in methods})
keys = ["top1", "many", "medium", "few"]
rows = [
    [
        METHOD_LOOKS[m].label,
        *(mean_and_spread([run.result[key] for run in trained[m]]) for key in keys),
        paired_difference(trained[m], trained["ce"]),
    ]
    for m in methods
]
table(
    ["method", "top-1 (%)", "many", "medium", "few", "top-1 − CE"],
    rows,
    f"{protocol(trained['gcl_crt'])}. Last column: difference seed by seed.",
)

# %%
show(
    values_by_class(
        data,
        {
            "Test accuracy (%)": [
                over_seeds(METHOD_LOOKS[m], [run.result["per_class"] for run in trained[m]])
                for m in methods
            ]
        },
        percent=True,
    ),
    "08_accuracy",
    "Test accuracy of each class, largest first, for cross-entropy, GCL and GCL with cRT.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# **What to notice.** With the published settings nothing is gained on average on this folder: GCL
# with cRT has 88.7 ± 5.7 % where cross-entropy has 91.1 ± 1.6 %. Look at the spread, and at the
# smallest class in the figure (bands are ± one standard deviation over seeds): on one of the three
# seeds the network misses it entirely; without that seed GCL is level with cross-entropy or above.
# One difference from the paper is the number of *steps*. 417 images are 7 batches, 60 epochs of
# them 420 steps of gradient descent; the published recipe for CIFAR-10-LT at ratio 100 takes 194 ×
# 200 = 38,800. An epoch is not a unit of training: on a small folder ask for more of them (exercise
# 2 tests that) or for settings that need fewer, which is what the grid below looks for.
#
# One warning on your own test part. In that of the digits all classes have equally many images.
# Where yours is as long-tailed as the training part, top-1 counts the head many times over, and a
# method that gives the tail its due will usually lose; then read `per_class`, or its mean over the
# classes (exercise 1).
#
# ## `GCLLoss` in your own loop
#
# Perhaps you have a loop already. Then two things change in it: the classifier gives *cosines*, and
# the criterion is `GCLLoss`. Below, only the loss, the classifier and the sampler are essential;
# network, epochs and normalisation are taken over from above so that the results can be compared.
# The folder is read by torchvision. The digits are few enough to be stacked into one tensor (a
# large folder would stay a `Dataset`), and one thread is faster than two for so small a network.

# %%
torch.set_num_threads(1)
read = transforms.Compose(
    [
        transforms.Resize(data.train.images.pixels.shape[2:]),
        transforms.ToTensor(),
        transforms.Normalize(data.mean, data.std),
    ]
)
parts = [datasets.ImageFolder(str(images / part), read) for part in ("train", "test")]
(x, y), (x_test, y_test) = [
    (torch.stack([image for image, _ in part]), torch.tensor(part.targets)) for part in parts
]
counts = torch.bincount(y)  # of the training part, by label: what GCLLoss has to know
dict(zip(parts[0].classes, counts.tolist(), strict=True))

# %% [markdown]
# **Stage 1** trains everything on shuffled images. The recipe is as plain as such loops are: SGD
# with momentum, the rate falling along a cosine, no mixup, no random crop. A generator made from
# the seed is handed to all that draws, so that nothing depends on torch's global one; `GCLLoss` has
# the defaults of the published code.

# %%
gcl = resolve(p.dataset, "gcl_crt", p.preset or None)
epochs = gcl.stage1.epochs, gcl.stage2.epochs
sgd = {"momentum": 0.9, "weight_decay": 2e-4}
stage1 = []
for seed in range(p.seeds):
    generator = torch.Generator().manual_seed(seed)
    backbone = build_network(own["network"], len(counts), generator=generator).backbone
    classifier = CosineClassifier(backbone.out_features, len(counts))
    classifier.reset_parameters(generator)
    criterion = GCLLoss(counts, generator=generator)
    weights = [*backbone.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.1, **sgd)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs[0])
    loader = DataLoader(TensorDataset(x, y), 64, shuffle=True, generator=generator)
    for _ in range(epochs[0]):
        for inputs, target in loader:
            loss = criterion(classifier(backbone(inputs)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    stage1.append((backbone.eval(), classifier, generator))

# %% [markdown]
# **Stage 2** freezes the backbone and goes on with the classifier alone, on samples that
# `CBENSampler` draws. A frozen backbone without augmentation gives each image the same feature in
# every epoch, so the features are computed once. Scale 20, margin 0.1, the focal factor and the
# rate 0.002 are stage 2 of the published code.

# %%
yours = []
for backbone, classifier, generator in stage1:
    with torch.no_grad():
        features, unseen = (
            torch.cat([backbone(part) for part in whole.split(256)]) for whole in (x, x_test)
        )
    criterion = GCLLoss(counts, scale=20, margin=0.1, focal_gamma=1, generator=generator)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.002, **sgd)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs[1])
    sampler = CBENSampler(y, generator=generator)
    loader = DataLoader(TensorDataset(features, y), 64, sampler=sampler)
    before = Tally(data.num_classes).add(classifier(unseen), y_test)
    for _ in range(epochs[1]):
        for inputs, target in loader:
            loss = criterion(classifier(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    after = Tally(data.num_classes).add(classifier(unseen), y_test)
    yours.append([tally.accuracies(data.groups) for tally in (before, after)])

# %% [markdown]
# Is that the same as the package's training? Not bit by bit, as it draws other numbers; but with
# the same recipe it must agree up to the spread over seeds. So the package trains once more, with
# its mixup, warm-up, crops and steps switched off and the cosine switched on.

# %%
plain = own | {"mixup_alpha": 0, "crop_padding": 0, "flip": False, "precision": "float32"}
plain |= {"schedule": "cosine", "warmup": 0}
same = run_variants(
    p, {"gcl": ("gcl", plain), "gcl_crt": ("gcl_crt", plain | {"stage2_mixup_alpha": 0})}
)
rows = []
for stage, m in enumerate(("gcl", "gcl_crt")):
    for who, found in (
        ("your loop", [row[stage] for row in yours]),
        ("the package, same recipe", [run.result for run in same[m]]),
        ("the package, full recipe", [run.result for run in trained[m]]),
    ):
        cells = [mean_and_spread([each[key] for each in found]) for key in keys]
        rows.append([f"{METHOD_LOOKS[m].label}: {who}", *cells])
table(["", "top-1 (%)", "many", "medium", "few"], rows, protocol(same["gcl_crt"]) + ".")

# %% [markdown]
# **What to notice.** With the same recipe stage 1 has 90.5 ± 0.6 % in your loop and 92.3 ± 2.0 % in
# the package, which is 1.8 apart with a standard error of 1.2. Three seeds cannot say whether that
# is luck, so we have run more. After ten of each the difference was still 1.8, by then with a
# standard error of 0.6, as if something were wrong; 24 further seeds had standard deviations of 1.5
# and 2.1 around 89.2 and 89.7 %. Over all 34 it is 0.9 with a standard error of 0.44: still two of
# them, so a small difference is not excluded. What settles such a question is not more seeds but a
# test: the package's suite steps both of its stages beside a plain loop with the same draws, and
# finds them equal weight by weight.
#
# The plain recipe is better here than the full one on average, within the spread. Its stage 2 does
# next to nothing (0.2 points), where the same rate and steps moved the full recipe; why, is not
# measured here.
#
# ## What goes wrong, and what you are told
#
# These are common errors with a loss of this kind. We make each of them on purpose, with the
# classifier and the features that are trained above.

# %%
cosine, C = classifier(features).detach(), len(counts)
mistakes = {
    "logits w·f, not cosines": lambda: criterion(features @ classifier.weight.T, y),
    "scaled twice: cosines times 30": lambda: criterion(30 * cosine, y),
    "labels from 1 to C": lambda: criterion(cosine, y + 1),
    "a class is missing from the counts": lambda: GCLLoss(counts[1:])(cosine, y),
    "a class without training images": lambda: GCLLoss([*counts.tolist(), 0]),
    "labels in place of counts": lambda: GCLLoss(y)(cosine, y),
    "shuffle with a sampler": lambda: DataLoader(parts[0], shuffle=True, sampler=CBENSampler(y)),
    "NaN from the network": lambda: criterion(cosine.log(), y),
}
said = {}
for mistake, make in mistakes.items():
    try:
        make()
        said[mistake] = "nothing"
    except (GCLError, ValueError) as error:
        said[mistake] = f"{type(error).__name__}: {error}"
Markdown("\n".join(f"- {what}: `{line}`" for what, line in said.items()))

# %% [markdown]
# **What to notice.** All of these stop in the first step (on a GPU the values of cosines and labels
# are not looked at, because checking them would make the GPU wait; run one step on the CPU first).
# The first two matter most, as nothing else would stop them: with logits training seems to work,
# but features and anchors can grow until the cloud no longer matters.
#
# Three others cannot be refused, because what is passed is legal: counts in another order than the
# labels (sorted by size, say), counts of another part, and a loss that is still in training mode
# when epochs are compared. One look at `cloud_sizes` tells the first two, and
# `criterion.eval()` ends the third.

# %%
head, tail = int(counts.argmax()), int(counts.argmin())
given = {
    "counts by label (right)": counts,
    "counts sorted by size": counts.sort(descending=True).values,
    "counts of the test part": torch.bincount(y_test),
}
rows = []
for what, of in given.items():
    sizes = GCLLoss(of).cloud_sizes
    rows.append([what, f"{sizes[head]:.2f}", f"{sizes[tail]:.2f}"])
names = [f"{as_text(data.class_names[j])} ({counts[j]} images)" for j in (head, tail)]
table(["", *(f"δ of {name}" for name in names)], rows)

# %%
rows = []
for mode in (True, False):
    criterion.train(mode)
    losses = [f"{criterion(cosine, y):.4f}" for _ in range(2)]
    rows.append(["train" if mode else "eval", *losses])
table(["mode of the loss", "once", "again"], rows, "The same loss of the same cosines, twice.")

# %% [markdown]
# **What to notice.** The cloud has to be 0 for the largest class and 1 for the smallest. Sorted
# counts give the *largest* class the widest cloud here, and counts of a balanced part give none at
# all: GCL has silently become cross-entropy. In the loop above, sorted counts cost the few-shot
# classes 26 points of stage 1 (51.3 ± 3.5 instead of 77.6 ± 0.4 %), and those of the test part 19.
# In training mode the loss of the very same cosines is another number each time. Two more, for the
# list: `criterion.to(device)`, as the cloud sizes are a buffer of the loss; and a frozen backbone
# has to be in `eval()`, or batch normalisation goes on learning from balanced batches.
#
# ## Which settings? A grid
#
# $k$, $s$ and the number of epochs are worth a look on new data. The author's answer to a user
# whose two classes did not train was to make $s$ smaller, and it worked (issue 3 of the published
# code). But a setting that is chosen on the test images is overestimated by their accuracy. So we
# hold a fifth of the *training* images out, as the test part of a second folder, and try every
# combination there. (Here $s$ and $k$ are those of stage 1; stage 2 stays at $s = 20$, $k = 0.5.)
# What is to be run is one file:

# %%
split_image_folder(images / "train", place / "held_out")
grid = {
    "dataset": "folder:held_out",
    "preset": p.preset or "official",
    "settings": {"imbalance_ratio": None, **own},
    "cells": [
        {"method": "ce", "seed": list(range(p.seeds))},
        {
            "method": "gcl_crt",
            "scale": [10.0, 30.0],
            "noise_multiplier": [0.5, 1.0],
            "seed": list(range(p.seeds)),
        },
    ],
}
(place / "own.yaml").write_text(yaml.safe_dump(grid, sort_keys=False, default_flow_style=None))
print((place / "own.yaml").read_text())

# %% [markdown]
# Each entry is a product, with a cell for every combination. `plan` checks all of it and shows what
# is done already and how long the rest will take, judging by earlier runs; a wrong setting is
# refused here and not after a night.

# %%
grid_runs = project_path(p.runs)
number = f" --workers {p.workers}" if p.workers else ""
terminal(f"grid plan own.yaml --runs $RUNS{number}", place, RUNS=grid_runs)

# %% [markdown]
# `run` starts a cluster of [Dask](https://distributed.dask.org) workers on this machine, one for
# each core, and ends with the state of every cell; `grid status own.yaml` shows the same from
# another terminal while it is at work. Interrupted and started again, it goes on after the last
# saved epoch of each run.

# %%
terminal(f"grid run own.yaml --runs $RUNS{number}", place, RUNS=grid_runs)

# %% [markdown]
# `collect` writes one row for each finished cell into a parquet file, with every setting, the
# accuracies and the versions. From here on it is a pandas data frame. The held-out images are as
# long-tailed as the others, so we look at the mean of the accuracies of the classes, not at top-1.

# %%
terminal("grid collect own.yaml --runs $RUNS --out own.parquet", place, RUNS=grid_runs)

# %%
results = load_results(place / "own.parquet")
results["mean of classes"] = results["per_class"].map(mean)
results["setting"] = [
    "CE" if m == "ce" else f"GCL + cRT, s = {s:g}, k = {k:g}"
    for m, s, k in zip(
        results["method"], results["scale"], results["noise_multiplier"], strict=True
    )
]
columns = ["mean of classes", "many", "medium", "few"]
over = results.groupby("setting", sort=False)[columns]
summary = over.mean().round(1).astype(str)
if p.seeds > 1:
    summary += " ± " + over.std().round(1).astype(str)

# %%
show(
    dots(
        {
            title: {name: list(at) for name, at in results.groupby("setting", sort=False)[column]}
            for title, column in (("Mean of the classes", columns[0]), ("Few-shot classes", "few"))
        },
        "accuracy on held-out images (%)",
        {name: METHOD_LOOKS[m].colour for m, name in results[["method", "setting"]].to_numpy()},
    ),
    "08_grid",
    "Accuracy on held-out training images for cross-entropy and four settings of GCL with cRT: a"
    " dot for each seed, mean and standard deviation.",
    folder,
    {"runs": sorted(results["run"])},
)

# %%
held = load_dataset(
    DataSettings(f"folder:{place}/held_out", imbalance_ratio=None, image_size=p.image_size or None)
)
few = sum(int((held.test.labels == j).sum()) for j in held.groups["few"])
table(
    ["setting", *(f"{column} (%)" for column in columns)],
    [[name, *row] for name, row in zip(summary.index, summary.to_numpy(), strict=True)],
    f"{len(held.test.labels)} held-out images, {few} of them of few-shot classes; "
    f"{p.seeds} seeds, mean ± standard deviation.",
)

# %% [markdown]
# **What to notice.** Two dots of one row are two trainings that are tested on the *same* 84 images,
# 5 of them of few-shot classes: their accuracy moves in steps of 20 points. By these bars $s = 10$,
# $k = 1$ is far above the published setting (96.3 ± 3.2 against 84.3 ± 3.8 %) and hardly above
# $s = 10$, $k = 0.5$ (92.2 ± 4.8 %). What no bar shows is the luck of which five images were held
# out; exercise 4 draws them again, and neither finding survives as it stands.
#
# The rule for such a choice is best made beforehand. Ours: the best mean on the held-out images is
# taken, and both the choice and the published setting are reported on the test images. The grid has
# never seen these. But we had, further up, where they showed that the published setting is poor
# here, so this is not a first look; on your own data do the grid first.

# %%
ours = results[results["method"] == "gcl_crt"]
best = ours.groupby(["scale", "noise_multiplier"])["mean of classes"].mean().idxmax()
chosen = dict(zip(("scale", "noise_multiplier"), map(float, best), strict=True))
final = run_variants(p, {"chosen": ("gcl_crt", own | chosen)})["chosen"]

# %%
rows = [
    [
        name,
        *(mean_and_spread([run.result[key] for run in of]) for key in keys),
        paired_difference(final, of),
    ]
    for name, of in (
        ("CE", trained["ce"]),
        ("GCL + cRT, published s = 30, k = 0.5", trained["gcl_crt"]),
        (f"GCL + cRT, chosen s = {best[0]:g}, k = {best[1]:g}", final),
    )
]
header = ["on the test part", "top-1 (%)", "many", "medium", "few", "top-1: chosen − this"]
table(header, rows, f"{protocol(final)}; $s$ and $k$ of stage 1. Last column: seed by seed.")

# %% [markdown]
# **What to notice.** On images that had no part in choosing it the choice has 94.2 ± 1.0 %, with
# 90.2 ± 3.4 % for the few-shot classes: on average above cross-entropy and above the published
# setting, by about two standard errors with three seeds. It was chosen for 96.3 % (the mean of the
# classes is the top-1 of this balanced test part): the best of several numbers tends to be too
# high, by the luck that made it the best. That a smaller scale helps is what the author advised;
# why it does in so few steps is more than these numbers say.
#
# **More machines.** `grid run own.yaml --scheduler tcp://FIRST:8786` gives the same cells to a Dask
# cluster of any size: start `dask scheduler` on one machine and `dask worker` on all, with the
# folder of runs and the images under the same path. On SLURM, dask-jobqueue makes such a cluster in
# four lines; both are in [Grids](../docs/grids.md).
#
# ## Exercises
#
# Each asks for a prediction or a measurement.

# %% [markdown]
# 1. *Predict, then measure.* Suppose your test part were as long-tailed as your training part.
#    Which of the three methods has the best top-1 then?
#    `gcl_core.training.evaluation.weighted_accuracy` takes the accuracies of the classes and the
#    weight that each has among the test images.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Cross-entropy, by far: 97.6 ± 0.1 %, GCL 95.1 ± 1.4 %, GCL with cRT 91.9 ± 2.2 %. 275 of 417
# images are of the three largest classes, where it is nearly perfect. If the tail is as rare in use
# as in training, and all errors cost the same, that is the number to go by and no re-balancing is
# needed. The measures disagree because they answer different questions.
#
# </details>

# %% tags=["solution", "hide-cell"]
from gcl_core.training.evaluation import weighted_accuracy

rows = []
for m in methods:
    per_class = [run.result["per_class"] for run in trained[m]]
    as_trained = [weighted_accuracy(each, data.class_counts) for each in per_class]
    balanced = [mean(each) for each in per_class]
    rows.append([METHOD_LOOKS[m].label, mean_and_spread(as_trained), mean_and_spread(balanced)])
table(["method", "test classes as in training (%)", "all classes alike (%)"], rows)

# %% [markdown]
# 2. *Epochs or steps?* Run the notebook with `-p preset digits`, which has 120 epochs of stage 1
#    (840 steps) instead of 60 (420) and is otherwise the same. Predict first which method gains
#    most.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# GCL, which is behind with 60 epochs (87.3 ± 5.4 %) and ahead with 120: 96.7 ± 0.3 %. GCL with cRT
# goes from 88.7 ± 5.7 to 94.7 ± 0.9 %, cross-entropy from 91.1 ± 1.6 to 93.7 ± 0.3 %. Mixup and
# clouds are both perturbations, and need time to be averaged over; before you judge a method on
# your own data, double the epochs once (and judge on held-out images, not as here).
#
# </details>

# %% [markdown]
# 3. *A mistake that nothing refuses.* Before you run it: with counts sorted by size, which class of
#    the stand-in gets the widest cloud, and which of the rare ones gets hardly any? Then give the
#    loop of stage 1 `counts.sort(descending=True).values` and look at the accuracies of the
#    classes.

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The last class by name, which is "zero" with 124 images, is taken for the smallest; "eight", with
# 8 images, is class 0 and gets no cloud, "nine", with 6, a third of one. Few-shot accuracy falls
# from 77.6 ± 0.4 to 51.3 ± 3.5 %, below that without any cloud (58.4 ± 2.3 %, which is what the
# counts of the balanced test part give). No error, a falling loss, and a top-1 of 82.9 % that looks
# like a method that does not work.
#
# </details>

# %% [markdown]
# 4. *How much of the choice was luck?* `split_image_folder(..., seed=1)` holds out other images,
#    and `grid run own.yaml --dataset folder:OTHER` runs the same file on them; `grid collect` takes
#    the same `--dataset` and another `--out`. Does the ranking of the four settings stay?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Mean of the classes on held-out images, three seeds each:
#
# | setting | split 0 | split 1 | split 2 | mean |
# |---|---:|---:|---:|---:|
# | CE | 84.3 | 94.3 | 89.0 | 89.2 |
# | s = 10, k = 0.5 | 92.2 | 93.7 | 89.3 | 91.7 |
# | s = 10, k = 1 | 96.3 | 88.1 | 87.2 | 90.5 |
# | s = 30, k = 0.5 | 84.3 | 91.1 | 83.5 | 86.3 |
# | s = 30, k = 1 | 90.2 | 91.4 | 81.3 | 87.6 |
#
# The splits differ as much as the settings: another draw of five images moves a row by up to ten
# points. On split 1 the chosen setting is below the published one. The smaller scale is 4 points
# ahead on average, with a standard error of 2 over three splits; only at $k = 0.5$ is it ahead on
# all of them. The noise multiplier is not decided at all: on the test part $s = 10$, $k = 0.5$ has
# 94.3 ± 1.1 %, no less than the choice (a further look, for teaching; in earnest it would be one
# too many). With so few rare images change one thing, $s$, and leave the rest as published.
#
# </details>

# %% [markdown]
# 5. *Arithmetic.* How many held-out images of the few-shot classes would tell 90 % from 92 %, if
#    two standard errors of their difference were enough and both were measured on separate draws?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The variance of a share $q$ of $n$ images is $q(1-q)/n$; that of the difference is
# $0.1636/n$, from 0.9 times 0.1 and 0.92 times 0.08. Two standard errors are 0.02 for 1636 images
# of each draw. Compared on the same images it takes fewer, since what both get wrong cancels, but
# not 26, and there are no more in the whole training part: differences of a few points cannot be
# seen on held-out images of such a folder.
#
# </details>

# %% [markdown]
# The folders that this notebook has made are removed when it is run as a batch; in a live notebook
# they stay for the exercises until the kernel ends, or until you call `scratch.cleanup()`.

# %%
from gcl_core.course.interaction import is_live

if not is_live():
    scratch.cleanup()

# %% [markdown]
# ## Summary
#
# A folder with `train/CLASS` and `test/CLASS` is all that the package needs; what does not fit is
# refused in a line. In your own loop, cosines go in, counts are by label and of the training part,
# and the scale is in the loss; logits are refused, a wrong order of counts cannot be. Published
# settings belong to a length of training: count your steps. A grid finds better ones on held-out
# images, as far as these can tell, which for the tail of a small folder is not far.
#
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733).
# - The published code: Keke921/GCLLoss; few classes and the scale are its issue 3.
# - M. Rocklin. *Dask: Parallel Computation with Blocked Algorithms and Task Scheduling.* SciPy
#   2015.
# - The digits: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine
#   Learning Repository, in scikit-learn.
