"""Nouns of WordNet as a graph: synsets, what their glosses say, and what each is a kind of."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = {
    "04": "act",
    "05": "animal",
    "06": "artifact",
    "07": "attribute",
    "10": "communication",
    "15": "location",
    "18": "person",
    "20": "plant",
    "26": "state",
    "27": "substance",
}
"""Numbers of the ten largest lexicographer files of nouns, and what they hold."""

WORDS = 500
UNLABELLED = -1


class Synset(NamedTuple):
    """number: of its lexicographer file. above: keys of what it is a kind or an instance of."""

    number: str
    above: list[str]
    words: set[str]


class Graph(NamedTuple):
    """N synsets. keys: their places in data.noun. words: float32 [N, 500], which of the commonest
    words a gloss has, each row of length 1 or zero. classes: int64 [N], all of them. labels:
    the same where they are known, else -1. tested: bool [N], never learned from by students.
    edges: int64 [2, E], from a synset to what it is a kind of."""

    keys: list[str]
    words: np.ndarray
    classes: np.ndarray
    labels: np.ndarray
    tested: np.ndarray
    edges: np.ndarray


def nouns(file: Path, count: int, labels_per_class: int) -> Graph:
    """At least so many synsets, drawn by chance with all that is above them; a fifth of them is
    tested, and so many of each class have a label."""
    synsets = _drawn(_synsets(file), count)
    keys, rows = list(synsets), {key: row for row, key in enumerate(synsets)}
    numbers = list(CLASSES)
    classes = np.array([numbers.index(one.number) for one in synsets.values()])
    draw = np.random.default_rng(1)
    tested = np.zeros(len(keys), bool)
    tested[draw.permutation(len(keys))[: len(keys) // 5]] = True
    labels = np.full(len(keys), UNLABELLED)
    for number in range(len(numbers)):
        known = draw.permutation(np.flatnonzero((classes == number) & ~tested))
        labels[known[:labels_per_class]] = number
    joined = [
        (rows[key], rows[other])
        for key, one in synsets.items()
        for other in one.above
        if other in rows
    ]
    words = _bags([one.words for one in synsets.values()])
    return Graph(keys, words, classes, labels, tested, np.array(joined).T)


def _synsets(file: Path) -> dict[str, Synset]:
    """Those of the classes, by key."""
    found = {}
    for line in file.read_text("utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        key, number, _, members, *rest = fields.split()
        if number in CLASSES:
            pointers = rest[2 * int(members, 16) + 1 :]
            above = [
                pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at][0] == "@"
            ]
            definition = gloss.partition('; "')[0]
            found[key] = Synset(number, above, set(re.findall("[a-z]+", definition.lower())))
    return found


def _drawn(synsets: dict[str, Synset], count: int) -> dict[str, Synset]:
    """Some of them, and what is above these as far as it is there."""
    keys, chosen = list(synsets), {}
    for place in np.random.default_rng(0).permutation(len(keys)):
        waiting = [keys[place]]
        while waiting:
            key = waiting.pop()
            if key in synsets and key not in chosen:
                chosen[key] = synsets[key]
                waiting += synsets[key].above
        if len(chosen) >= count:
            break
    return chosen


def _bags(texts: list[set[str]]) -> np.ndarray:
    counts = Counter(word for words in texts for word in sorted(words))
    columns = {word: column for column, (word, _) in enumerate(counts.most_common(WORDS))}
    bags = np.zeros((len(texts), WORDS), np.float32)
    for row, words in enumerate(texts):
        bags[row, [columns[word] for word in words if word in columns]] = 1
    return bags / np.maximum(1, np.linalg.norm(bags, axis=1, keepdims=True))
