"""Trains a small neural network on real handwritten digits, with numpy alone.

images: float32 [n, 64] in 0..1; labels: int [n]. Two hidden layers, softmax, Adam, a little noise
on the training images. Writes ``model.npz`` (the weights) and ``metrics.json``.
"""

import gzip
import itertools
import json
import pathlib
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
EPOCHS = 150
BATCH = 32
LAYERS = (64, 384, 192, 10)


def load():
    """The images and labels, shuffled once, split 80 : 20 into training and held-out."""
    with gzip.open(HERE / "digits.csv.gz", "rt") as source:
        table = np.loadtxt(source, delimiter=",", dtype=np.float32)
    order = np.random.default_rng(7).permutation(len(table))
    images, labels = table[order, :64] / 16.0, table[order, 64].astype(int)
    cut = len(table) * 4 // 5
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def noisy(images, rng):
    """The images with a little Gaussian noise, so that the network cannot learn them by heart."""
    return images + rng.normal(0, 0.1, images.shape).astype(np.float32)


def forward(weights, images):
    """Activations of every layer; the last are class probabilities, float32 [n, 10]."""
    activations = [images]
    for index, (matrix, bias) in enumerate(weights):
        out = activations[-1] @ matrix + bias
        if index < len(weights) - 1:
            out = np.maximum(out, 0)
        else:
            out = np.exp(out - out.max(axis=1, keepdims=True))
            out /= out.sum(axis=1, keepdims=True)
        activations.append(out)
    return activations


def gradients(weights, activations, labels):
    """Cross-entropy's gradient for each weight, in the weights' own shapes."""
    delta = activations[-1].copy()
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    found = []
    for index in range(len(weights) - 1, -1, -1):
        found.append((activations[index].T @ delta, delta.sum(axis=0)))
        if index:
            delta = (delta @ weights[index][0].T) * (activations[index] > 0)
    return found[::-1]


def adam(weights, grads, moments, step, slowdown):
    """One step of Adam in place. Source: Kingma and Ba, 2015, with its default constants.

    ``slowdown`` in 0..1 scales the step: falling to 0, it lets the last epochs settle.
    """
    rate = 1e-3 * slowdown * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
    for layer, slopes, means in zip(weights, grads, moments, strict=True):
        for value, slope, (first, second) in zip(layer, slopes, means, strict=True):
            first += 0.1 * (slope - first)
            second += 0.001 * (slope * slope - second)
            value -= rate * first / (np.sqrt(second) + 1e-8)


def main():
    began = time.monotonic()
    train_x, train_y, held_x, held_y = load()
    rng = np.random.default_rng(11)
    weights = [
        ((rng.standard_normal((a, b)) * (2 / a) ** 0.5).astype(np.float32), np.zeros(b, np.float32))
        for a, b in itertools.pairwise(LAYERS)
    ]
    moments = [[(np.zeros_like(v), np.zeros_like(v)) for v in layer] for layer in weights]
    print(f"training on {len(train_x)} images, held out {len(held_x)}", flush=True)
    step, accuracy = 0, 0.0
    for epoch in range(1, EPOCHS + 1):
        order = rng.permutation(len(train_x))
        inputs, loss = noisy(train_x, rng), 0.0
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            step += 1
            activations = forward(weights, inputs[batch])
            right = activations[-1][np.arange(len(batch)), train_y[batch]]
            loss -= float(np.log(right + 1e-12).sum())
            grads = gradients(weights, activations, train_y[batch])
            adam(weights, grads, moments, step, 1 - (epoch - 1) / EPOCHS)
        accuracy = float((forward(weights, held_x)[-1].argmax(axis=1) == held_y).mean())
        if epoch % 15 == 0 or epoch == 1:
            mean = loss / len(train_x)
            print(f"epoch {epoch:3d}  loss {mean:.4f}  held-out {accuracy:.2%}", flush=True)
    np.savez("model.npz", *[value for layer in weights for value in layer])
    metrics = {"accuracy": round(accuracy, 4), "seconds": round(time.monotonic() - began, 2)}
    pathlib.Path("metrics.json").write_text(json.dumps(metrics) + "\n", encoding="utf-8")
    print(f"done: held-out accuracy {accuracy:.2%}", flush=True)


if __name__ == "__main__":
    main()
