"""Mixup and CutMix: each sample of a batch mixed with another, both clips of a pair alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# In a mixed batch: the label of the sample mixed in, and the share of the sample's own.
PARTNER_LABEL = "mix/label"
OWN_SHARE = "mix/share"
# The same on any device.
_GENERATOR = "philox"
# Steps of the table that shares are drawn by.
_STEPS = 4096


class Mixer:
    """Mixes the samples of a batch; what is drawn depends on seed, step and replica, and on nothing else.

    Each sample x has a partner y of the same batch, a labelled one where x has a label and an unlabelled one
    where not, so that no label is lost; each is partner once. Mixup gives λx + (1 - λ)y, CutMix puts a box
    of y at its place in x and takes for λ the share of x that is left. λ is the larger share that
    Beta(alpha, alpha) gives: the label of x is the one that weighs more. Partner, λ and box are the same for
    both clips of a pair and for all frames.

    Args:
        mixup, cutmix: float >= 0, alpha; 0 is off. With both, either is drawn for each sample.
        seed: int >= 0.

    Source: Zhang et al. 2018, mixup; Yun et al. 2019, CutMix, algorithm A1. Deviations: λ and the box are
    drawn for each sample, λ is at least 1/2, and partners have a label where the sample has one.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0, seed: int = 0) -> None:
        self.seed = seed
        self._mixup, self._cutmix = (
            smaller_shares(alpha) if alpha > 0 else None for alpha in (mixup, cutmix)
        )

    @property
    def active(self) -> bool:
        return self._mixup is not None or self._cutmix is not None

    def mix(
        self, batch: dict[str, Any], views: tuple[str, ...], step: Any, replica: Any = 0
    ) -> dict[str, Any]:
        """A mixed batch.

        Args:
            batch: has the views' clips, float `(B, T, H, W, C)`, and "label" int `(B,)` or `(B, n)`, -1 for
                unlabelled.
            views: to mix, of one height and width.
            step, replica: whole numbers, which the draw depends on.

        Returns:
            The batch with mixed clips, PARTNER_LABEL of the shape of "label", -1 for unlabelled samples, and
            OWN_SHARE float32 `(B,)` in [1/2, 1].
        """
        key = tf.stack([tf.cast(self.seed, tf.int64), tf.cast(step, tf.int64)])
        key = tf.random.fold_in(key, tf.cast(replica, tf.int64), alg=_GENERATOR)
        label = tf.convert_to_tensor(batch["label"])
        clips = {view: tf.convert_to_tensor(batch[view]) for view in views}
        height, width = clips[views[0]].shape[2:4]
        drawn = tf.unstack(draw_shares((5, tf.shape(label)[0]), key))
        # Of several heads, or several labels, any will do.
        known = label if label.shape.rank == 1 else tf.reduce_max(label, axis=-1)
        partner = choose_partners(known, drawn[0])
        own = self._own(drawn[1:], height, width)
        mixed = {view: own * clip + (1.0 - own) * tf.gather(clip, partner) for view, clip in clips.items()}
        return {
            **batch,
            **mixed,
            PARTNER_LABEL: tf.gather(label, partner),
            OWN_SHARE: tf.reduce_mean(own, axis=(1, 2, 3, 4)),
        }

    def _own(self, drawn: list[tf.Tensor], height: int, width: int) -> tf.Tensor:
        """Share of each sample's own pixels: float32 `(B, 1, H, W, 1)`, or `(B, 1, 1, 1, 1)`."""
        share, y, x, which = drawn
        by_mixup = by_cutmix = None
        if self._mixup is not None:
            by_mixup = 1.0 - look_up(self._mixup, share)[:, None, None, None, None]
        if self._cutmix is not None:
            by_cutmix = outside_box(look_up(self._cutmix, share), y, x, height, width)
        if by_mixup is None or by_cutmix is None:
            return by_cutmix if by_mixup is None else by_mixup
        return tf.where(which[:, None, None, None, None] < 0.5, by_mixup, by_cutmix)


def draw_shares(shape: tuple[Any, ...], key: tf.Tensor) -> tf.Tensor:
    """float32 of `shape` in [0, 1), the same with XLA as without.

    TensorFlow makes other numbers of the same bits under XLA, so that they are made here.
    """
    bits = tf.random.stateless_uniform(shape, key, None, None, tf.uint32, alg=_GENERATOR)
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def choose_partners(label: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """Whom each sample is mixed with: int32 `(B,)`, a permutation within the labelled and the others.

    Args:
        label: int `(B,)`, -1 for unlabelled.
        drawn: float `(B,)` in [0, 1), by which each group is lined up; the next in the line is the partner.
    """
    labeled = label >= 0
    line = tf.argsort(tf.where(labeled, drawn, drawn + 1.0))
    place, count = tf.range(tf.shape(label)[0]), tf.reduce_sum(tf.cast(labeled, tf.int32))
    # The last of each group has its first.
    following = tf.where(place + 1 == count, 0, tf.where(place + 1 == tf.size(place), count, place + 1))
    return tf.gather(line, tf.gather(following, tf.argsort(line)))


def outside_box(area: tf.Tensor, y: tf.Tensor, x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """0 in a box of the picture's shape, 1 outside: float32 `(B, 1, H, W, 1)`.

    Args:
        area: float `(B,)`, share of the picture that the box has, before it is cut at the edges.
        y, x: float `(B,)` in [0, 1), where its middle is.
    """
    side = tf.sqrt(area)

    def within(middle: tf.Tensor, size: int) -> tf.Tensor:
        half = tf.cast(side * size, tf.int32) // 2
        middle = tf.cast(middle * size, tf.int32)
        place = tf.range(size)[None]
        return (place >= (middle - half)[:, None]) & (place < (middle + half)[:, None])

    # (B, H, 1) & (B, 1, W) → (B, H, W) → (B, 1, H, W, 1)
    box = within(y, height)[:, :, None] & within(x, width)[:, None, :]
    return 1.0 - tf.cast(box, tf.float32)[:, None, :, :, None]


def smaller_shares(alpha: float) -> np.ndarray:
    """Quantiles of the smaller of λ and 1 - λ, λ from Beta(alpha, alpha): float32 `(steps + 1,)`, 0 to 1/2.

    A table, since XLA has no gamma distribution to draw from.
    """
    wanted = np.linspace(0.0, 0.5, _STEPS + 1)
    low, high = np.zeros_like(wanted), np.full_like(wanted, 0.5)
    for _ in range(60):
        middle = (low + high) / 2
        below = tf.math.betainc(np.float64(alpha), np.float64(alpha), middle).numpy() < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return ((low + high) / 2).astype(np.float32)


def look_up(quantiles: np.ndarray, drawn: tf.Tensor) -> tf.Tensor:
    """What has the rank `drawn`, float `(B,)` in [0, 1), between the entries of a table: float32 `(B,)`."""
    place = drawn * (len(quantiles) - 1)
    below = tf.minimum(tf.cast(place, tf.int32), len(quantiles) - 2)
    rest, table = place - tf.cast(below, tf.float32), tf.constant(quantiles)
    return (1.0 - rest) * tf.gather(table, below) + rest * tf.gather(table, below + 1)
