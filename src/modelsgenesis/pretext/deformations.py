"""The deformations in their order: flip, local shuffling, non-linear intensity, in- or out-painting.

Each is a function of a batch, a seed per sample and the configuration, and draws random numbers from a stream of its
own. `DEFORMATIONS` lists those that only the input of the network sees; a flip is one of input and target alike.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ConfigurationError, ShapeError, require
from modelsgenesis.pretext.random import GOLDEN_32, draw_words, scramble, take, uniform
from modelsgenesis.pretext.shuffling import shuffle

# A curve is a chain of 1,024 straight pieces, read at 4,096 even intervals of intensity: a voxel finds its interval
# by one multiplication instead of a search. Both errors shrink with the square of the count; with these the map is
# within 1e-5 of the curve evaluated at 100,000 points, less than a cached voxel is rounded by, but where it is nearly
# vertical.
_CURVE_POINTS = 1025
_INTERVALS = 4096

_BOXES = 5
_ANOTHER = 0.95  # chance of each further box
_BORDER = 3  # voxels between a box and the border

_CACHED_VALUES = 2**20  # values that are deformed together on a CPU: they stay in its cache


class Deformation:
    """Makes pairs to learn from: the deformed patch and the (flipped) one that a network restores.

    Args:
        config: Probabilities and sizes; see `modelsgenesis.configs.SCHEMES` for those of the paper's ablation.

    Example:
        >>> from modelsgenesis.configs import SCHEMES
        >>> from modelsgenesis.pretext import draw_seeds
        >>> deform = Deformation(SCHEMES["V"])
        >>> deformed, target = deform(torch.rand(2, 1, 32, 32, 16), draw_seeds(2, torch.Generator().manual_seed(0)))
        >>> deformed.shape == target.shape
        True

    References:
        Zhou et al., Models Genesis, Medical Image Analysis 67, 2021, section 3.
    """

    def __init__(self, config: PretextConfig | None = None) -> None:
        self.config = config or PretextConfig()
        added = [name for name in DEFORMATIONS if not hasattr(self.config, f"{name}_probability")]
        for name in set(self.config.others).difference(added):
            raise ConfigurationError(
                f"pretext.others: received {name!r}, expected one added to modelsgenesis.pretext.deformations "
                f"({', '.join(added) or 'none'}); the paper's have settings such as pretext.painting_probability"
            )

    @torch.no_grad()
    def __call__(self, batch: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Deform a batch.

        Args:
            batch: [b, c, *spatial], float32 or bfloat16 in [0, 1]; it is left alone. Channels move alike.
            seeds: int64 [b], one per sample. A sample comes out the same whatever the batch around it.

        Returns:
            The deformed batch and the target that a network restores from it, both [b, c, *spatial].

        Raises:
            ShapeError: The batch has the wrong axes, dtype or range, or there is not one seed per sample.
        """
        fits = batch.ndim in (4, 5) and batch.numel() and batch.dtype in (torch.float32, torch.bfloat16)
        received = f"batch of {batch.dtype} and shape {tuple(batch.shape)}"
        expected = "float32 or bfloat16 and [batch, channels, *spatial] with two or three spatial axes and no empty one"
        require(fits, ShapeError, f"{received}: expected {expected}; see batch.float() and batch[None]")
        wrong = f"seeds: received {seeds.dtype} of shape {tuple(seeds.shape)} for a batch of {len(batch)}"
        is_fitting = seeds.dtype == torch.int64 and seeds.shape == batch.shape[:1]
        require(is_fitting, ShapeError, f"{wrong}, expected int64 [batch]; draw_seeds makes them")
        low, high = torch.stack(torch.aminmax(batch)).tolist()
        remedy = "prepare scans by an intensity window or percentiles, not by z-scores"
        message = f"batch with values in [{low:g}, {high:g}]: the deformations assume [0, 1]; {remedy}"
        require(low >= 0 and high <= 1, ShapeError, message)  # this refuses NaN too
        batch, seeds = batch.contiguous(), seeds.to(batch.device)
        part = max(_CACHED_VALUES // batch[0].numel(), 1) if batch.device.type == "cpu" else len(batch)
        pairs: list[tuple[Tensor, Tensor]] = []
        for samples, keys in zip(batch.split(part), seeds.split(part), strict=True):
            deformed = target = flip(samples, keys, self.config)
            for deform in DEFORMATIONS.values():
                deformed = deform(deformed, keys, self.config)
            pairs.append((deformed, target))
        deformed, target = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return deformed, target


def flip(batch: Tensor, seeds: Tensor, config: PretextConfig) -> Tensor:
    """Flip a random spatial axis, and again, while a coin of `flip_probability` says so.

    Example:
        >>> batch = torch.rand(2, 1, 8, 8, 4)
        >>> torch.equal(flip(batch, torch.tensor([1, 2]), PretextConfig(flip_probability=1.0, flip_limit=1)), batch)
        False

    References:
        Zhou et al. 2021. The release draws the axis over (channel, x, y), so that z never flips and one draw
        in three does nothing; here it is drawn over the spatial axes.
    """
    axes = batch.ndim - 2
    coins, turns = draw_words(seeds, "flip", 2, config.flip_limit).unbind(dim=1)  # each [b, limit]
    continues = (uniform(coins) < config.flip_probability).cumprod(dim=1)  # ends at the first tails
    flips = functional.one_hot(take(turns, axes)[0], axes)  # [b, limit, axes]
    is_flipped = reduce(flips * continues[:, :, None], "b limit axes -> b axes", "sum") % 2 == 1  # two cancel out
    flipped = batch.clone()
    for axis in range(axes):
        chosen = is_flipped[:, axis].nonzero()[:, 0]
        flipped[chosen] = flipped[chosen].flip(axis + 2)
    return flipped


def change_intensity(batch: Tensor, seeds: Tensor, config: PretextConfig) -> Tensor:
    """Map intensities by a cubic Bézier curve with random control points, upwards or downwards.

    The curve goes from (0, 0) to (1, 1). With control points in the unit square both its coordinates rise, so
    there is nothing to sort: the increasing map takes x(t) to y(t), the decreasing one x(t) to y(1 − t).

    Example:
        >>> change_intensity(torch.rand(2, 1, 8, 8, 4), torch.tensor([1, 2]), PretextConfig()).shape
        torch.Size([2, 1, 8, 8, 4])

    References:
        Zhou et al. 2021, non-linear intensity transformation.
    """
    chance, direction, *control = uniform(draw_words(seeds, "intensity", 6)).unbind(dim=1)
    is_applied = chance[:, None] < config.intensity_probability
    is_increasing = direction[:, None] < 0.5
    first, second = torch.stack(control, dim=1).view(-1, 2, 2, 1).unbind(dim=1)  # each (abscissa, ordinate): [b, 2, 1]
    t = torch.linspace(0, 1, _CURVE_POINTS, device=batch.device)
    # Not a matrix product: that rounds differently in batches of different size.
    curve = 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    x, y = curve.unbind(dim=1)  # each [b, points], rising from 0 to 1
    y = torch.where(is_increasing, y, y.flip(1))
    # Read as a straight line over each of many even intervals.
    grid = torch.linspace(0, 1, _INTERVALS + 1, device=x.device)
    # How many points of the curve lie at or left of each intensity, hence which two are its neighbours.
    place = (x * _INTERVALS).ceil_().long().clamp_(max=_INTERVALS)
    passed = torch.zeros(len(x), _INTERVALS + 1, dtype=torch.int64, device=x.device)
    right = passed.scatter_add_(1, place, torch.ones_like(place)).cumsum_(dim=1).clamp_(max=_CURVE_POINTS - 1)
    x_left, x_right = x.gather(1, right - 1), x.gather(1, right)
    weight = ((x_right - grid) / (x_right - x_left).clamp_min_(1e-12)).clamp_(0, 1)  # of the left neighbour
    heights = torch.lerp(y.gather(1, right), y.gather(1, right - 1), weight)
    # A line for each interval, the last for the intensity 1 alone; that of samples to be kept is y = x.
    slopes = heights.diff(dim=1, append=2 * heights[:, -1:] - heights[:, -2:-1]) * _INTERVALS
    intercepts = torch.where(is_applied, heights - slopes * grid, 0.0).flatten()
    slopes = torch.where(is_applied, slopes, 1.0).flatten()

    values = rearrange(batch.float(), "b ... -> b (...)")
    line = (values * _INTERVALS).int()  # of its own sample; the next line makes it one of all samples' lines
    line += torch.arange(len(batch), dtype=torch.int32, device=batch.device)[:, None] * (_INTERVALS + 1)
    line = line.flatten()
    mapped = intercepts.index_select(0, line)
    mapped.addcmul_(slopes.index_select(0, line), values.flatten())
    return mapped.clamp_(0, 1).view(batch.shape).to(batch.dtype)  # rounding could leave [0, 1]


def paint(batch: Tensor, seeds: Tensor, config: PretextConfig) -> Tensor:
    """Paint boxes, or all but boxes, with uniform noise, or by `painting_fill` with a constant per sample.

    In-painting: up to 5 boxes, each further one with probability 0.95, with sides from size // 6 to
    size // 3. Out-painting: 1 and up to 4 more boxes stay visible, with sides from size − 4 · size // 7 to
    size − 3 · size // 7. Boxes keep 3 voxels from each border, or as many as a thin axis has room for: below
    9 voxels for in-painting, 14 for out-painting. Sides are at least 1. Channels are painted at the same
    voxels, each with its own noise.

    Example:
        >>> bool((paint(torch.zeros(2, 1, 16, 16, 16), torch.tensor([1, 2]), PretextConfig()) > 0).any())
        True

    References:
        Zhou et al. 2021, in-painting and out-painting (inner- and outer-cutout). The paper fills with a
        constant, the release with noise; noise is the default.
    """
    shape = batch.shape[2:]
    outside, starts, stops, noise_keys = draw_boxes(shape, seeds, config)
    # A box is the product of intervals, one per axis, and the five boxes of a sample are five bits of one byte: a voxel
    # has the bit of a box along an axis if its coordinate lies in the interval, and `&` over the axes leaves the bits
    # of the boxes that hold the voxel. So the full volume is passed over once for all boxes.
    bit = 2 ** torch.arange(_BOXES, device=starts.device)[:, None]
    covering = starts.new_full((1,) * (1 + len(shape)), 2**_BOXES - 1, dtype=torch.uint8)
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=starts.device)
        inside = (starts[..., axis, None] <= place) & (place < stops[..., axis, None])
        bits = reduce(inside * bit, "b boxes side -> b side", "sum").to(torch.uint8)
        covering = covering & bits.view(-1, *(side if other == axis else 1 for other in range(len(shape))))
    painted = (covering.clamp_(max=1) ^ outside.view(-1, *(1,) * len(shape))).view(torch.bool)  # [b, *spatial]
    # Noise comes from hashes of 32 bits, two values each, in half the memory of `draw_words`.
    values = batch[0].numel() if config.painting_fill == "noise" else 1
    pairs = torch.arange(-(-values // 2), dtype=torch.int32, device=batch.device)
    hashed = scramble((pairs * GOLDEN_32) ^ noise_keys.int()[:, None]).view(torch.int16)[:, :values]
    fill = (hashed * 2.0**-16).add_(0.5)  # from −1/2 … 1/2 to [0, 1)
    fill = fill.view(batch.shape if values > 1 else (-1, *(1,) * (batch.ndim - 1)))
    return torch.where(painted[:, None], fill.to(batch.dtype), batch)


def draw_boxes(shape: Sequence[int], seeds: Tensor, config: PretextConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw the boxes of each sample for patches of a shape; a sample that is not painted has none and is not `outside`.

    Returns:
        outside: bool [b]; True paints all but the boxes, False paints the boxes.
        starts: int64 [b, boxes, axes], first voxel of each box.
        stops: int64 [b, boxes, axes], one past its last voxel; a box that is not used stops where it starts.
        noise_keys: int64 [b], of which the lower 32 bits count: from these the fill of every voxel follows.
    """
    each = _BOXES * len(shape)  # a number for every side of every box
    words = draw_words(seeds, "painting", 3 + 3 * each + _BOXES)
    painting, kind, noise_keys = words[:, :3].unbind(dim=1)
    inner, outer, places = words[:, 3:-_BOXES].unflatten(1, (3, _BOXES, len(shape))).unbind(dim=1)
    painted = uniform(painting) < config.painting_probability
    outside = painted & (uniform(kind) >= config.inpainting_share)
    size = torch.tensor(tuple(shape), device=seeds.device)
    shortest, longest = (size // 6).clamp_min(1), (size // 3).clamp_min(1)
    inner = shortest + take(inner, longest - shortest + 1)[0]
    outer = size - 3 * size // 7 - take(outer, 4 * size // 7 - 3 * size // 7 + 1)[0]
    sides = torch.where(rearrange(outside, "b -> b 1 1"), outer, inner)
    border = ((size - sides) // 2).clamp_max(_BORDER)
    starts = border + take(places, size - sides - 2 * border + 1)[0]
    continues = uniform(words[:, -_BOXES:]) < _ANOTHER
    continues[:, 0] |= outside  # the first box of out-painting is always there
    used = continues.cumprod(dim=1) * painted[:, None]
    return outside, starts, starts + sides * used[:, :, None], noise_keys


# In the order in which they follow one another. A new deformation is a function and a line here: its probability is
# `config.others["name"]`, which `--set pretext.others.name=0.5` sets, and its random numbers are those of
# `draw_words(seeds, "name", ...)`. Runs and cards record it, and what the other deformations draw stays as it is.
DEFORMATIONS: dict[str, Callable[[Tensor, Tensor, PretextConfig], Tensor]] = {
    "shuffle": shuffle,
    "intensity": change_intensity,
    "painting": paint,
}
