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
# # 8. Will it work on your own pictures?
#
# The package comes with 5,096 photographs that people took of their clothes: 1,011 of T-shirts, 23
# of blouses. Nobody has made this tail; it is what people own. **Which classes does a classifier
# find, and what can you change about the others?**
#
# Afterwards you can train on a folder of your own pictures and have new ones named, put `GCLLoss`
# into your own loop without its silent mistakes, and choose settings without fooling yourself.

# %% [markdown]
# ## Parameters
#
# Your own pictures take the place of the clothes by
# `papermill notebooks/08_your_own.ipynb out.ipynb -p dataset folder:PATH`.

# %% tags=["parameters", "hide-input"]
dataset: str = "clothes"  # folder:PATH is your own; clothes: photographs that come with the package
imbalance_ratio: float = 0.0  # n_max / n_min that is cut out of the data; 0: as they are
preset: str = ""  # pretrained, official, short, smoke or digits; empty: the data set's own
seeds: int = 3  # runs of each variant; of clothes, each on another split
pictures: int = 30  # photographs of each class, at most, that are written as a folder
runs: str = "runs"  # folder of all runs, in the project unless absolute
figures: str = ""  # folder to save the figures in; empty: show them only
workers: int = 0  # runs at a time; 0: one for each core

# %% tags=["hide-input"]
from gcl_core.course.notebook import checked_parameters, project_path

p = checked_parameters(
    globals(), minimum={"seeds": 1, "pictures": 5, "imbalance_ratio": 0, "workers": 0}
)
folder, all_runs = project_path(p.figures), project_path(p.runs)

# %% tags=["hide-input"]
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean

import torch
import yaml
from IPython.display import Markdown
from torch.utils.data import DataLoader, TensorDataset

from gcl_core import CosineClassifier, GCLError, GCLLoss
from gcl_core.course.notebook import paired_difference, protocol, run_variants, show, table
from gcl_core.course.terminal import terminal
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.photographs import photographs

# %% tags=["hide-input"]
from gcl_core.figures.saving import about_runs
from gcl_core.figures.series import over_seeds
from gcl_core.results.chosen import chosen_table
from gcl_core.results.markdown import as_text
from gcl_core.results.records import load_records
from gcl_core.results.tables import mean_and_spread
from gcl_core.training.evaluation import Tally
from gcl_core.training.features import features_of
from gcl_core.training.two_stages import make_fabric

scratch = tempfile.TemporaryDirectory(prefix="gcl-own-")
place = Path(scratch.name)
if p.dataset.startswith("folder:"):
    p.dataset = f"folder:{Path(p.dataset.removeprefix('folder:')).expanduser().absolute()}"

# %%
methods = ["ce", "gcl", "gcl_crt"]
trained = run_variants(p, {m: (m, {}) for m in methods})
data = trained["gcl"][0].dataset
by_class = {m: [run.result["per_class"] for run in trained[m]] for m in methods}
show(
    photographs(data, [over_seeds(METHOD_LOOKS[m], by_class[m]) for m in methods[:2]]),
    "08_photographs",
    "Photographs of each class, its number of training images, and the share of its test images"
    " that cross-entropy and GCL recognise.",
    folder,
    about_runs(*trained.values()),
)

# %% [markdown]
# **What to notice.** In which classes do cross-entropy (CE) and GCL differ? The thin lines go from
# the lowest split to the highest, and are long for small classes: where five photographs are
# tested, each is worth 20 points.

# %% [markdown]
# ## What was trained, and what it gained
#
# Photographs go through a small network that others have trained on ImageNet (`lite0`, 4 million
# weights). Its numbers for a photograph are the *features*, of the clothes 256 each; only the
# classifier on top of them is trained, in seconds. Small images train a whole network.

# %%
first = trained["gcl"][0].settings
parts = "the classifier, on features" if first.on_features else f"all of {first.network}"
Markdown(f"Here: {parts}.")

# %% [markdown]
# **GCL** is the cross-entropy of
#
# $$z_j = s\,(\cos\theta_j - k\,\delta_j\,|\varepsilon_j|),$$
#
# where $\theta_j$ is the angle between feature and class $j$, $s$ the scale, and $\varepsilon_j$
# Gaussian noise. $\delta_j$ is 0 for the largest class and 1 for the smallest (notebook 2). **cRT**
# trains the classifier once more, on batches with as many images of each class.

# %%
keys = ["top1", "many", "medium", "few"]
rows = [
    [
        METHOD_LOOKS[m].label,
        *(mean_and_spread([run.result[key] for run in trained[m]]) for key in keys),
        *(paired_difference(trained[m], trained["ce"], key) for key in ("top1", "few")),
    ]
    for m in methods
]
header = ["method", "top-1 (%)", "many", "medium", "few", "top-1 − CE", "few − CE"]
table(header, rows, f"{protocol(trained['gcl'])}. Differences are split by split.")

# %% [markdown]
# **What to notice.** Where the test photographs are as long-tailed as those of training, top-1 is
# mostly about the frequent classes, and can hardly show a gain in the rare ones. Decide beforehand
# which number you need.

# %% [markdown]
# ## Three commands
#
# Photographs lie in a folder, a sub-folder for each class and nothing else. Without one of your own
# a small one is written, with few of each class.

# %%
taken, written = Counter(), Path(p.dataset.removeprefix("folder:"))
if not p.dataset.startswith("folder:"):
    written = place / "photos"
    for i, label in enumerate(data.train.labels.tolist()):
        name = data.class_names[label]
        if taken[name] < p.pictures:
            (written / name).mkdir(parents=True, exist_ok=True)
            data.train.images.picture(i).save(written / name / f"{taken[name]:03}.png")
            taken[name] += 1
Markdown(", ".join(f"{as_text(name)} {number}" for name, number in taken.most_common()))

# %% [markdown]
# Where there is no test part, `train` holds one out, and a validation part; it takes a network that
# fits, and says so. (Pictures of one person, or frames of one film, have to stay on one side:
# `split SOURCE OUT --groups FILE` makes such parts first.)

# %%
small = "--image-size 64" if p.dataset == "clothes" else ""
train = f"train --dataset folder:$PHOTOS --method gcl {small} --progress none"
terminal(train, place, PHOTOS=written)

# %% [markdown]
# `predict` names new pictures, with the probability of each name and the next ones. Where there is
# a validation part, the probabilities are calibrated on it.

# %%
(model,) = place.glob("runs/*/model.pt")
new = sorted(path for path in written.rglob("*") if path.is_file())[::101][:5]
files = " ".join(f"$PHOTOS/{path.relative_to(written)}" for path in new)
terminal(f"predict {model.parent.relative_to(place)} {files} --top 3", place, PHOTOS=written)

# %% [markdown]
# This shows the command, not the accuracy: few and small photographs come to little, and some of
# these were trained on. The third command is `report RUN`: one page with accuracy by class, who
# is taken for whom, and the worst mistakes beside the training pictures most like them.

# %% [markdown]
# ## In a loop of your own
#
# Two things change in it: the classifier gives *cosines*, and the loss is `GCLLoss`, which has to
# know how many training images each class has. Here $x$ are features; with a network in front of
# the classifier the loop is the same.

# %%
if data.has_pixels:
    network = trained["gcl"][0].network.backbone
    data = features_of(data, network, make_fabric("cpu", trained["gcl"][0].settings.precision))
x, y = data.train.images.pixels.flatten(1), data.train.labels
unseen, truth = data.test.images.pixels.flatten(1), data.test.labels
counts = torch.bincount(y)

generator = torch.Generator().manual_seed(0)
classifier = CosineClassifier(x.shape[1], len(counts))
classifier.reset_parameters(generator)
criterion = GCLLoss(counts, scale=20, generator=generator)
optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
loader = DataLoader(TensorDataset(x, y), 64, shuffle=True, generator=generator)
for _ in range(20):
    for inputs, target in loader:
        loss = criterion(classifier(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()

# %%
with torch.no_grad():
    mine = Tally(len(counts)).add(classifier(unseen), truth).accuracies(data.groups)
rows = [
    [who, *("-" if found[key] is None else f"{found[key]:.1f}" for key in keys)]
    for who, found in (("your loop", mine), ("the package", trained["gcl"][0].result))
]
table(["on the same split", "top-1 (%)", "many", "medium", "few"], rows)

# %% [markdown]
# **What to notice.** The numbers differ, for the learning rate and the draws are others.
# (With the same draws both are equal, weight by weight: the package's tests compare them.)

# %% [markdown]
# ## What goes wrong
#
# Here are the common mistakes, made on purpose.

# %%
cosine, C = classifier(x).detach(), len(counts)
mistakes = {
    "logits w·f, not cosines": lambda: criterion(x @ classifier.weight.T, y),
    "scaled twice": lambda: criterion(20 * cosine, y),
    "labels from 1 to C": lambda: criterion(cosine, y + 1),
    "a class without training images": lambda: GCLLoss([*counts.tolist(), 0]),
}
said = {}
for mistake, make in mistakes.items():
    try:
        make()
        said[mistake] = "nothing"
    except (GCLError, ValueError) as error:
        said[mistake] = str(error)
Markdown("\n".join(f"- {what}: `{line}`" for what, line in said.items()))

# %% [markdown]
# Those stop in the first step. Two others cannot be refused, because what is passed is legal:
# counts in another order than the labels, and counts of another part. The size of the cloud tells
# them: it has to be 0 for the largest class and 1 for the smallest.

# %%
head, tail = int(counts.argmax()), int(counts.argmin())
orders = {
    "counts by label (right)": counts,
    "counts sorted by size": counts.sort(descending=True).values,
    "all classes alike": torch.full_like(counts, 10),
}
rows = [
    [what, *(f"{GCLLoss(of).cloud_sizes[j]:.2f}" for j in (head, tail))]
    for what, of in orders.items()
]
names = [f"{as_text(data.class_names[j])} ({counts[j]} images)" for j in (head, tail)]
table(["", *(f"δ of {name}" for name in names)], rows)

# %% [markdown]
# **What to notice.** With sorted counts the cloud goes to whichever classes come last in the
# alphabet. With equal counts there is none: GCL has silently become cross-entropy. A third mistake
# is to compare losses of epochs with the noise in them: `criterion.eval()` takes it out.

# %% [markdown]
# ## Which settings?
#
# A setting that is chosen on the test pictures is overrated by them. So the choice is made on the
# *validation* part, and the test part is only looked at for what was chosen. What shall be tried
# stands in one file:

# %%
grid = {
    "dataset": p.dataset,
    **({"preset": p.preset} if p.preset else {}),
    "settings": {
        "seed, data_seed": list(range(p.seeds)),
        "imbalance_ratio": p.imbalance_ratio or None,
    },
    "cells": [
        {"method": "ce", "weight_decay": [0.002, 0.005]},
        {"method": "gcl", "scale": [16, 20], "noise_multiplier": [0.25, 0.5]},
    ],
}
(place / "own.yaml").write_text(yaml.safe_dump(grid, sort_keys=False, default_flow_style=None))
print((place / "own.yaml").read_text().replace(str(written), "PHOTOS"))

# %% [markdown]
# Each combination of the lists is a run. What was trained above is not trained again, and the same
# command goes on where it was interrupted, on as many machines as a
# [Dask](https://distributed.dask.org) cluster has.

# %%
number = f" --workers {p.workers}" if p.workers else ""
done = terminal(f"grid run own.yaml --runs $RUNS{number}", place, RUNS=all_runs)
Markdown("\n".join([*done.data.splitlines()[:2], "...", *done.data.splitlines()[-3:]]))

# %%
terminal("grid collect own.yaml --runs $RUNS --records own.json", place, RUNS=all_runs)
records = load_records(place / "own.json")
validated = all("validation" in each for each in records)
Markdown(chosen_table(records) if validated else "There is no validation part to choose on.")

# %% [markdown]
# **What to notice.** One row for each method, with its settings chosen split by split; behind ± is
# half of the 95 % t interval over the splits, wide where they are few. The
# [study](../results/study.md) has the same table over five splits and more methods, and
# [`results`](../results/README.md) one of plankton.

# %% [markdown]
# ## Exercises

# %% [markdown]
# 1. *Predict, then measure.* Suppose all classes were equally frequent where you use the
#    classifier. Which of the three methods would be right most often?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The one with the best mean of the classes, which weighs each of them alike. It need not be the one
# with the best top-1.
#
# </details>

# %% tags=["solution", "hide-cell"]
rows = [
    [
        METHOD_LOOKS[m].label,
        mean_and_spread([mean(a for a in each if a is not None) for each in by_class[m]]),
    ]
    for m in methods
]
table(["method", "mean of classes (%)"], rows)

# %% [markdown]
# 2. *A mistake that nothing refuses.* Give the loop above `counts.sort(descending=True).values`.
#    Which classes lose, and does the loss show it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Those that are rare and come early in the alphabet: they get hardly a cloud. On the clothes
# neither top-1 shows it nor the loss, which falls as it should; the few-shot classes do.
#
# </details>

# %% [markdown]
# 3. *Arithmetic.* Five test photographs of blouses: how far from the truth can their accuracy be?
#    And how many would tell 40 % from 60 %?

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# If 2 of 5 are found, the 95 % interval (Wilson) is from 12 to 77 %. The standard error of a share
# of 50 % is $0.5/\sqrt n$; 20 points are two standard errors of a difference of two such shares,
# $2\sqrt{2}\cdot 0.5/\sqrt n$, for $n = 50$. So look at groups of classes, at several splits, and
# at differences on the same pictures.
#
# </details>

# %% [markdown]
# ## Summary
#
# A folder of class folders is all that is needed, and a pre-trained network saves most of the time.
# The first table says how much GCL finds more of the rare classes, and what that costs the others.
# In your own loop the classifier gives cosines and the counts are by label. Choose on a validation
# part, and trust a rare class no further than its test pictures reach.

# %% [markdown]
# ## References
#
# - M. Li, Y.-M. Cheung, Y. Lu. *Long-tailed Visual Recognition via Gaussian Clouded Logit
#   Adjustment.* CVPR 2022, [arXiv 2305.11733](https://arxiv.org/abs/2305.11733).
# - B. Kang et al. *Decoupling Representation and Classifier for Long-Tailed Recognition* (cRT).
#   ICLR 2020, [arXiv 1910.09217](https://arxiv.org/abs/1910.09217).
# - A. Grigorev et al. *Clothing dataset* (CC0),
#   [github.com/alexeygrigorev/clothing-dataset](https://github.com/alexeygrigorev/clothing-dataset).

# %%
from gcl_core.course.interaction import is_live

if not is_live():
    scratch.cleanup()  # the folders that were made; a live notebook keeps them for the exercises
