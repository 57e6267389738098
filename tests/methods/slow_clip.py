"""The loss of images and texts by its definition, one pair at a time; ids are compared as sets."""

import torch
from torch.nn.functional import logsigmoid


class SlowClip:
    """Images, and all texts as columns (kind of view, row)."""

    def __init__(self, found, batch, *, scale, bias, private):
        self.found, self.scale, self.bias, self.private = found, scale, bias, private
        self.ids = {kind: view.ids.tolist() for kind, view in batch.views.items()}
        self.known = [set(row.tolist()) - {-1} for row in batch.known]
        self.images = range(len(self.known))
        self.columns = [(kind, row) for kind in found if kind != "image" for row in range(len(found[kind]))]

    def info_nce(self, positives):
        """Half from images to texts, half from texts to images."""
        back = self._back_from_all if positives == "sum" else self._back_from_each
        losses = []
        for image in self.images:
            right, wrong = self.right(image, positives), self.wrong(image)
            there = choose(
                [self.logit(image, column) for column in right],
                [self.logit(image, column) for column in wrong],
                together=positives == "sum",
            )
            losses.append((there + back(image, positives)) / 2)
        return torch.stack(losses)

    def sigmoid(self, positives):
        """Every pair judged by itself."""
        return torch.stack(
            [
                sum(-logsigmoid(self.logit(image, column)) for column in self.right(image, positives))
                + sum(-logsigmoid(-self.logit(image, column)) for column in self.wrong(image))
                for image in self.images
            ]
        )

    def _back_from_each(self, image, positives):
        losses = [
            choose([self.logit(image, column)], self.others(column), together=False)
            for column in self.right(image, positives)
        ]
        return torch.stack(losses).mean()

    def _back_from_all(self, image, positives):
        text = ("text", image)
        right = [self.logit(other, text) for other in self.images if text in self.right(other, positives)]
        return choose(right, self.others(text), together=True)

    def logit(self, image, column):
        kind, row = column
        return self.scale * self.found["image"][image] @ self.found[kind][row] + self.bias

    def right(self, image, positives):
        """The image's own text, and where asked for every other that is known to match."""
        more = [column for column in self._others_seen(image) if self._matches(image, column)]
        return [("text", image), *(more if positives != "target" else [])]

    def wrong(self, image):
        return [column for column in self._others_seen(image) if not self._matches(image, column)]

    def others(self, column):
        """The images that the text is wrong for."""
        return [self.logit(image, column) for image in self.images if column in self.wrong(image)]

    def _matches(self, image, column):
        kind, row = column
        return self.ids[kind][row] in self.known[image]

    def _others_seen(self, image):
        return [column for column in self.columns if column != ("text", image) and self._sees(image, column)]

    def _sees(self, image, column):
        kind, row = column
        mine = row // (len(self.found[kind]) // len(self.images)) == image
        is_private = kind == "edit" or (kind == "negative" and self.private)
        return self.ids[kind][row] != -1 and (mine or not is_private)


def choose(right, wrong, *, together):
    """-log of the share of the right ones together, or the mean of that of each alone, against the wrong."""
    right, wrong = torch.stack(right), torch.stack(wrong) if wrong else torch.zeros(0, dtype=right[0].dtype)
    if together:
        return torch.cat([right, wrong]).logsumexp(0) - right.logsumexp(0)
    return torch.stack([torch.cat([one[None], wrong]).logsumexp(0) - one for one in right]).mean()
