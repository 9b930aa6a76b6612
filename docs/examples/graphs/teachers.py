"""Two networks that see the whole graph: one of framelets, and a variational autoencoder."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LEVELS, HOPS = 64, 2, 2


class Made(NamedTuple):
    """float32 [N, 64] and [N, classes], of all nodes."""

    embedding: Tensor
    logits: Tensor


class Neighbours:
    """The edges of N nodes, and of each with itself, as a sparse matrix A of eigenvalues in
    [-1, 1]: an edge is one over the root of the product of both degrees."""

    def __init__(self, edges: np.ndarray, nodes: int) -> None:
        self.edges = torch.from_numpy(edges)
        itself = torch.arange(nodes).expand(2, -1)
        places = torch.cat([self.edges, self.edges.flip(0), itself], dim=1)
        degrees = torch.bincount(places[0], minlength=nodes).float()
        shares = (degrees[places[0]] * degrees[places[1]]).rsqrt()
        with torch.sparse.check_sparse_tensor_invariants():
            matrix = torch.sparse_coo_tensor(places, shares, (nodes, nodes))
        self.matrix = matrix.coalesce()

    def mean(self, x: Tensor) -> Tensor:
        """A x, of [N, D]."""
        return torch.sparse.mm(self.matrix, x)

    def bands(self, x: Tensor) -> Tensor:
        """[N, D] to [N, 3, D], which add up to it: what is left of two low-pass filters, each two
        steps A along the edges, and before it what either takes away, the high passes."""
        high = []
        for _ in range(LEVELS):
            low = x
            for _ in range(HOPS):
                low = self.mean(low)
            high.append(x - low)
            x = low
        return torch.stack([*high, x], dim=1)


class Framelets(nn.Module):
    """Two layers, which weigh all bands of their input, and a classifier."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear((LEVELS + 1) * words, WIDTH)
        self.second = nn.Linear((LEVELS + 1) * WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, classes)

    def forward(self, bands: Tensor, graph: Neighbours) -> tuple[Tensor, Tensor]:
        """Bands [N, 3, words] to embeddings [N, 64] and logits [N, classes]."""
        x = self.first(F.dropout(bands.flatten(1), 0.5, self.training)).relu()
        x = graph.bands(F.dropout(x, 0.5, self.training)).flatten(1)
        x = self.second(x).relu()
        return x, self.classifier(F.dropout(x, 0.5, self.training))

    def fit(self, bands: Tensor, graph: Neighbours, labels: Tensor, steps: int) -> None:
        """Learn from the nodes with a label, all of them in every step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01, weight_decay=5e-4)
        for _ in range(steps):
            loss = F.cross_entropy(self(bands, graph)[1], labels, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class SelfLabelled(nn.Module):
    """A variational autoencoder of edges and labels. Its encoder sees the words of all nodes and
    the labels of some; its decoders say which nodes are joined, and the labels of the others."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words, self.known = nn.Linear(words, WIDTH), nn.Linear(classes, WIDTH, bias=False)
        self.mean, self.spread = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, classes)
        self.bias = nn.Parameter(torch.zeros(()))

    def encoded(self, x: Tensor, graph: Neighbours, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of variances, [N, 64] each; labels: int64 [N], -1 = not seen."""
        seen = F.one_hot(labels + 1, self.classifier.out_features + 1)[:, 1:].float()
        x = self.words(F.dropout(x, 0.5, self.training)) + self.known(seen)
        x = F.dropout(graph.mean(x).relu(), 0.5, self.training)
        return graph.mean(self.mean(x)), graph.mean(self.spread(x)).clamp(max=4)

    def forward(self, x: Tensor, graph: Neighbours, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [N, 64], the means, and logits [N, classes]."""
        mean, _ = self.encoded(x, graph, labels)
        return mean, self.classifier(mean)

    def fit(self, x: Tensor, graph: Neighbours, labels: Tensor, steps: int) -> None:
        """Learn from all nodes; from a third of the steps on, what the classifier is sure of at a
        node without a label is its label, until the next look."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        believed = labels
        for step in range(steps):
            if step >= steps // 3 and step % 10 == 0:
                believed = self._believed(x, graph, labels)
            loss = self._loss(x, graph, believed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def _believed(self, x: Tensor, graph: Neighbours, labels: Tensor) -> Tensor:
        """Labels, with those of nodes of which the classifier gives one class 0.9 or more."""
        self.eval()
        shares, best = self(x, graph, labels)[1].softmax(dim=1).max(dim=1)
        self.train()
        return torch.where((labels < 0) & (shares > 0.9), best, labels)

    def _loss(self, x: Tensor, graph: Neighbours, labels: Tensor) -> Tensor:
        """Half of the labels are hidden from the encoder, and asked of the classifier."""
        hidden = torch.rand(len(labels)) < 0.5
        mean, spread = self.encoded(x, graph, labels.masked_fill(hidden, -1))
        latent = mean + torch.randn_like(mean) * (spread / 2).exp()
        asked = labels.masked_fill(~hidden, -1)
        known = F.cross_entropy(self.classifier(latent), asked, ignore_index=-1)
        first, second = graph.edges
        strangers = torch.randint(len(x), second.shape)
        joined, apart = (
            (latent[first] * latent[other]).sum(dim=1) / WIDTH**0.5 + self.bias
            for other in (second, strangers)
        )
        edges = F.softplus(-joined).mean() + F.softplus(apart).mean()
        prior = (mean.square() + spread.exp() - 1 - spread).sum(dim=1).mean() / 2
        return known + edges + 0.01 * prior


def framelets(bands: Tensor, graph: Neighbours, labels: Tensor, classes: int, steps: int) -> Made:
    """What a network of bands gives, trained on the labels."""
    torch.manual_seed(0)
    network = Framelets(bands.shape[2], classes)
    network.fit(bands, graph, labels, steps)
    with torch.no_grad():
        return Made(*network.eval()(bands, graph))


def self_labelled(
    words: Tensor, graph: Neighbours, labels: Tensor, classes: int, steps: int
) -> Made:
    """What an autoencoder gives, trained on edges and labels."""
    torch.manual_seed(0)
    network = SelfLabelled(words.shape[1], classes)
    network.fit(words, graph, labels, steps)
    with torch.no_grad():
        return Made(*network.eval()(words, graph, labels))
