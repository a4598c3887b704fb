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
# # Lab 1. See it
#
# A few classes have most of the images. How well does a network learn the others?
#
# Each step: **predict** first, **write** the missing lines, run the check, look. The check says
# what is off. Stuck? `recall = check.recall.right` takes the answer, and you go on.

# %% tags=["parameters"]
dataset: str = "clothes"  # clothes, digits, or folder:PATH with small images of one size
imbalance_ratio: float = 0.0  # n_max / n_min of the training images; 0: the data as they are

# %%
from gcl_core.course.notebook import checked_parameters

p = checked_parameters(globals(), minimum={"imbalance_ratio": 0})

# %%
import torch
import torch.nn.functional as F

from gcl_core.course import check, lab
from gcl_core.course.lab import moved, see
from gcl_core.figures.charts import dots, sweeps, values_by_class
from gcl_core.figures.lab import class_counts as count_bars
from gcl_core.figures.lab import image_rows
from gcl_core.figures.looks import Look
from gcl_core.figures.series import Series
from gcl_core.training.evaluation import Tally

data = lab.lab_data(p.dataset, p.imbalance_ratio)
names, images = data.dataset.class_names, data.dataset.train.images
head, rare = data.from_head_to_tail[0], data.from_head_to_tail[-1]

# %% [markdown]
# ## Step 1. Look at the images
#
# Look at the images before you train on them.
#
# **Predict**: how many times more images has the first class than the last?

# %%
chosen = [data.from_head_to_tail[i] for i in (0, data.classes // 2, -1)]
see(
    image_rows(
        {names[j]: [(images.picture(int(i)), "") for i in (data.y == j).nonzero()[:7, 0]]
         for j in chosen}
    ),
    "Training images of the most frequent class, one in the middle, and the rarest.",
)  # fmt: skip

# %% [markdown]
# **Write** the number of images of each class; a class without images counts zero.


# %% tags=["answer"]
def class_counts(labels, num_classes):
    """Images of each class: (N,) labels to (num_classes,)."""
    return torch.bincount(labels, minlength=num_classes)


check.class_counts(class_counts)

# %%
counts = class_counts(data.y, data.classes)
few = data.few
see(
    count_bars(data.dataset),
    "Training images of each class, the most first, on a logarithmic axis.",
    f"{names[head]} has {counts[head]} images, {names[rare]} has {counts[rare]}:",
    f"{counts[head] / counts[rare]:.0f} : 1. The {len(few)} rarest classes, called few-shot, have",
    f"{100 * counts[few].sum() / counts.sum():.1f} % of all images.",
)

# %% [markdown]
# ## Step 2. Train
#
# A step makes the loss of one batch a little smaller.
#
# **Predict**: which classes will the network know last?
#
# **Write** the step: the loss is the cross-entropy of `model(x)` and `y`; then gradients to zero,
# backward, and the optimiser's step.


# %% tags=["answer"]
def training_step(model, optimizer, x, y):
    """Change the model's weights for one batch; return the loss."""
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


check.training_step(training_step)

# %% [markdown]
# Now a whole training: your step, batch after batch. After each epoch the test images are
# classified.

# %%
model = lab.network(data, seed=0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0.005)
shuffle = torch.Generator().manual_seed(0)
top1, of_few = [], []
for _ in range(lab.EPOCHS):
    for batch in torch.randperm(len(data.y), generator=shuffle).split(64):
        training_step(model, optimizer, data.x[batch], data.y[batch])
    right = model(data.x_test).argmax(1) == data.y_test
    top1.append(100 * right.double().mean())
    of_few.append(100 * right[torch.isin(data.y_test, torch.tensor(few))].double().mean())

# %%
lines = [Series(Look("all test images", "#000000"), top1)]
lines += [Series(Look("few-shot classes", "#CC79A7"), of_few)]
see(
    sweeps(range(1, lab.EPOCHS + 1), "epoch", {"Test images that are right (%)": lines}),
    "Accuracy by epoch of all test images and of those of the few-shot classes.",
    f"At the end: all test images {top1[-1]:.1f} %, those of few-shot classes {of_few[-1]:.1f} %.",
)

# %% [markdown]
# `lab.train` has the same loop; from here on it is used.

# %%
same = lab.train(data, F.cross_entropy, seed=0)
print("same weights:", all(map(torch.equal, model.parameters(), same.parameters())))

# %% [markdown]
# ## Step 3. Look at the wrong ones
#
# An accuracy does not show which images are wrong, and why.
#
# **Predict**: what are images of rare classes taken for?
#
# **Write** the indices of the images whose largest logit is not that of their label.


# %% tags=["answer"]
def wrong_images(logits, labels):
    """Indices of the wrong images: (N, C) logits and (N,) labels to (n,)."""
    return (logits.argmax(1) != labels).nonzero().flatten()


check.wrong_images(wrong_images)

# %%
logits = model(data.x_test).detach()
guesses, tests = logits.argmax(1), data.dataset.test.images
wrong = wrong_images(logits, data.y_test)
shown = {}
for j in [j for j in data.from_head_to_tail[::-1] if bool((data.y_test[wrong] == j).any())][:3]:
    own = wrong[data.y_test[wrong] == j][:7]
    shown[names[j]] = [(tests.picture(int(i)), names[guesses[i]]) for i in own]
larger = data.counts[guesses[wrong]] > data.counts[data.y_test[wrong]]
see(
    image_rows(shown),
    "Wrong test images of the rarest classes, each with the class that it is taken for.",
    "Below each image: what it is taken for.",
    f"{100 * larger.double().mean():.0f} % of all wrong images go to a class with more training"
    " images than their own.",
)

# %% [markdown]
# ## Step 4. Recall and precision
#
# Two questions about a class: how many of its images are found, and how many of the answers with
# its name are right?
#
# **Predict**: which of the two is lower for a rare class?
#
# **Write** both. Rows of `confusion` are true classes, columns predicted ones.


# %% tags=["answer"]
def recall(confusion):
    """Share of each class's images that are found: (C, C) to (C,)."""
    return confusion.diagonal() / confusion.sum(1)


def precision(confusion):
    """Share of the answers with each class's name that are right: (C, C) to (C,)."""
    return confusion.diagonal() / confusion.sum(0)


check.recall(recall), check.precision(precision)

# %%
confusion = Tally(data.classes).add(logits, data.y_test).confusion
found, trusted = 100 * recall(confusion), 100 * precision(confusion)
lines = [
    Series(Look("recall", "#000000"), found),
    Series(Look("precision", "#D55E00", "--"), trusted),
]
see(
    values_by_class(data.dataset, {"Test images (%)": lines}, percent=True),
    "Recall and precision of each class, from the most to the fewest training images.",
    f"Mean of the few-shot classes: recall {found[few].mean():.1f} %, precision"
    f" {trusted[few].nanmean():.1f} %.",
    f"{names[rare]}: {confusion[rare].sum()} test images, {confusion[rare, rare]} found;"
    f" the name is given {confusion[:, rare].sum()} times.",
)

# %% [markdown]
# ## Step 5. What top-1 hides
#
# Top-1 accuracy is the share of all test images that are right. So it is a weighted mean of the
# recalls: a class with more test images weighs more.
#
# **Predict**: does it rise or fall if all classes have equally many test images?
#
# **Write** the mean of the recalls with weights, which need not add up to one.


# %% tags=["answer"]
def weighted_accuracy(recall, weights):
    """Accuracy if class j is weights[j] / sum(weights) of the test: two (C,) to one number."""
    return (recall * weights).sum() / weights.sum()


check.weighted_accuracy(weighted_accuracy)

# %%
mixes = {"as in training": counts, "as in the test": confusion.sum(1)}
mixes |= {"every class alike": torch.ones_like(counts), "rare classes most": 1 / counts}
accuracy = {name: float(weighted_accuracy(found, mix)) for name, mix in mixes.items()}
see(
    dots({"One network, four tests": {n: [a] for n, a in accuracy.items()}}, "accuracy (%)"),
    "Accuracy of one network for four mixes of the classes in the test.",
    moved(
        "From the training mix to every class alike the accuracy of the same network",
        accuracy["as in training"],
        accuracy["every class alike"],
    ),
)

# %% [markdown]
# The accuracy with every class alike is called *balanced*. Frequent classes are the *head* of the
# data, rare ones the *tail*. The next notebook asks why the tail is lost, and mends it.

# %% [markdown]
# ## Questions

# %% [markdown]
# **Why is accuracy on training images no help here?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# A network can learn all training images, rare ones too. What it loses are new images of rare
# classes.
#
# </details>

# %% [markdown]
# **Another test has another mix of classes. Which changes: a class's recall, or its precision?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# The precision: it counts wrong images of the other classes, too. Recall is of one class alone.
#
# </details>

# %% [markdown]
# **A class is never predicted. What are its recall and its precision?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# Its recall is zero. Its precision is not defined: nothing is divided by nothing.
#
# </details>

# %% [markdown]
# **What does a step do without `zero_grad()`?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# `backward()` adds: the step then follows the sum of all gradients so far.
#
# </details>

# %% [markdown]
# **When is top-1 the number that you want?**

# %% [markdown] tags=["solution"]
# <details><summary>Answer</summary>
#
# When the test has the mix of classes that the network will meet, and every mistake costs the same.
#
# </details>
