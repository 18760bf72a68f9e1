"""The deformations in their order: flip, local shuffling, non-linear intensity, in- or out-painting, implants.

Each is a function of a batch, a seed per sample and the configuration, and draws random numbers from a stream of its
own. `DEFORMATIONS` lists those that only the input of the network sees; a flip is one of input and target alike.
"""

import operator
from collections.abc import Callable, Sequence
from functools import cached_property, reduce

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ConfigurationError, ShapeError, require
from modelsgenesis.pretext.implants import implant
from modelsgenesis.pretext.random import (
    GOLDEN_32,
    Seeds,
    constant,
    draw_words,
    hash_seeds,
    kept,
    multiples,
    scramble,
    send,
    take,
    uniform,
)
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
        self._made: set[tuple[torch.Size, torch.device]] = set()
        added = [name for name in DEFORMATIONS if not hasattr(self.config, f"{name}_probability")]
        for name in set(self.config.others).difference(added):
            raise ConfigurationError(
                f"pretext.others: received {name!r}, expected one added to modelsgenesis.pretext.deformations "
                f"({', '.join(added) or 'none'}); the paper's have settings such as pretext.painting_probability"
            )

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
        check_range(batch)
        return self.deform(batch, seeds)

    @torch.no_grad()
    def deform(self, batch: Tensor, seeds: Tensor, *, compiles: bool = False) -> tuple[Tensor, Tensor]:
        """Deform a batch whose values are known to lie in [0, 1]: to look would make a GPU's queue run empty.

        Takes and returns what calling does. Nothing waits for the device of the batch if the seeds are there or on
        the CPU. `compiles` fuses what a device is given to do by `torch.compile`; on the CPU there is nothing to gain.

        Raises:
            ShapeError: The batch has the wrong axes or dtype, or there is not one seed per sample.
        """
        fits = batch.ndim in (4, 5) and batch.numel() and batch.dtype in (torch.float32, torch.bfloat16)
        received = f"batch of {batch.dtype} and shape {tuple(batch.shape)}"
        expected = "float32 or bfloat16 and [batch, channels, *spatial] with two or three spatial axes and no empty one"
        require(fits, ShapeError, f"{received}: expected {expected}; see batch.float() and batch[None]")
        wrong = f"seeds: received {seeds.dtype} of shape {tuple(seeds.shape)} for a batch of {len(batch)}"
        is_fitting = seeds.dtype == torch.int64 and seeds.shape == batch.shape[:1]
        require(is_fitting, ShapeError, f"{wrong}, expected int64 [batch]; draw_seeds makes them")
        if batch.device.type != "cpu":
            batch = batch.contiguous()
            if not compiles:
                return self._deform(batch, seeds)
            seeds = send(seeds, batch.device)
            if (batch.shape, batch.device) not in self._made:
                self._made.add((batch.shape, batch.device))
                self._deform(batch, seeds)  # makes what is kept, which the compiler is to find and not to look into
            return self._compiled(batch, seeds)
        part = max(_CACHED_VALUES // batch[0].numel(), 1)
        parts = zip(batch.contiguous().split(part), seeds.cpu().split(part), strict=True)
        deformed, target = (torch.cat(done) for done in zip(*(self._deform(*each) for each in parts), strict=True))
        return deformed, target

    def _deform(self, batch: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        hashed = hash_seeds(seeds)
        deformed = target = flip(batch, hashed, self.config)
        for deform in DEFORMATIONS.values():
            deformed = deform(deformed, hashed, self.config)
        return deformed, target

    @cached_property
    def _compiled(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return torch.compile(self._deform, dynamic=False)


def check_range(batch: Tensor) -> None:
    """Refuse values outside [0, 1]; on a GPU this waits for them.

    Raises:
        ShapeError: There are such values, or NaN.
    """
    if not batch.numel():  # refused for its shape
        return
    low, high = torch.stack(torch.aminmax(batch)).tolist()
    remedy = "prepare scans by an intensity window or percentiles, not by z-scores"
    message = f"batch with values in [{low:g}, {high:g}]: the deformations assume [0, 1]; {remedy}"
    require(low >= 0 and high <= 1, ShapeError, message)


def flip(batch: Tensor, seeds: Seeds, config: PretextConfig) -> Tensor:
    """Flip a random spatial axis, and again, while a coin of `flip_probability` says so.

    Example:
        >>> batch = torch.rand(2, 1, 8, 8, 4)
        >>> torch.equal(flip(batch, torch.tensor([1, 2]), PretextConfig(flip_probability=1.0, flip_limit=1)), batch)
        False

    References:
        Zhou et al. 2021. The release draws the axis over (channel, x, y), so that z never flips and one draw
        in three does nothing; here it is drawn over the spatial axes.
    """
    shape = batch.shape[2:]
    coins, turns = draw_words(seeds, "flip", 2, config.flip_limit).unbind(dim=1)  # each [b, limit]
    continues = (uniform(coins) < config.flip_probability).cumprod(dim=1)  # ends at the first tails
    axes = take(turns, len(shape))[0][..., None] == constant(tuple(range(len(shape))), turns.device)
    is_flipped = (axes * continues[..., None]).sum(dim=1) & 1  # [b, axes]: two cancel out
    if batch.device.type != "cpu":
        return look_up_flipped(batch, is_flipped)
    flipped = batch.clone()
    for axis in range(len(shape)):
        chosen = is_flipped[:, axis].nonzero()[:, 0]
        flipped[chosen] = flipped[chosen].flip(axis + 2)
    return flipped


def look_up_flipped(batch: Tensor, is_flipped: Tensor) -> Tensor:
    """Flip samples along axes, int64 [b, axes] of 0 and 1, without asking the device how many these are."""
    shape = tuple(batch.shape[2:])
    place, axis = coordinates(shape, is_flipped.device)
    last = is_flipped * (constant(shape, is_flipped.device) - 1)
    places = send((last.index_select(1, axis) - place).abs_(), batch.device).split(shape, dim=1)
    for number, (each, along) in enumerate(zip(places, _along(len(shape)), strict=True)):
        batch = batch.gather(number + 2, each.view(len(batch), 1, *along).expand_as(batch))
    return batch


@kept
def coordinates(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places along each axis, one axis after another, and of which axis each is: int64 [sum of sides]."""
    places = [torch.arange(side) for side in shape]
    axes = [torch.full_like(place, axis) for axis, place in enumerate(places)]
    return torch.cat(places).to(device), torch.cat(axes).to(device)


def _along(axes: int) -> list[tuple[int, ...]]:
    """Return for each axis the shape that lays a list along it."""
    return [tuple(-1 if other == axis else 1 for other in range(axes)) for axis in range(axes)]


def change_intensity(batch: Tensor, seeds: Seeds, config: PretextConfig) -> Tensor:
    """Map intensities by a cubic Bézier curve with random control points, upwards or downwards.

    The curve goes from (0, 0) to (1, 1). With control points in the unit square both its coordinates rise, so
    there is nothing to sort: the increasing map takes x(t) to y(t), the decreasing one x(t) to y(1 − t).

    Example:
        >>> change_intensity(torch.rand(2, 1, 8, 8, 4), torch.tensor([1, 2]), PretextConfig()).shape
        torch.Size([2, 1, 8, 8, 4])

    References:
        Zhou et al. 2021, non-linear intensity transformation.
    """
    draws = send(uniform(draw_words(seeds, "intensity", 6)), batch.device)
    is_applied, is_increasing = draws[:, :1] < config.intensity_probability, draws[:, 1:2] < 0.5
    first, second = draws[:, 2:].view(-1, 2, 2, 1).unbind(dim=1)  # each (abscissa, ordinate): [b, 2, 1]
    early, late, end, grid = _curve(batch.device)
    # Not a matrix product: that rounds differently in batches of different size.
    curve = torch.addcmul(end, early, first).addcmul_(late, second)
    x, y = curve.unbind(dim=1)  # each [b, points], rising from 0 to 1
    y = torch.where(is_increasing, y, y.flip(1))
    # Read at even intervals. Of how many points of the curve between its ends lie at or left of each intensity follows
    # which piece it is on.
    place = (x[:, 1:-1] * _INTERVALS).ceil_().long()
    passed = torch.zeros(len(x), _INTERVALS + 2, dtype=torch.int64, device=x.device)
    piece = passed.scatter_add_(1, place, constant((1,), x.device).expand_as(place)).cumsum_(dim=1)
    x_left, x_right = x.gather(1, piece), x[:, 1:].gather(1, piece)
    weight = ((x_right - grid) / (x_right - x_left).clamp_min_(1e-12)).clamp_(0, 1)  # of the left neighbour
    heights = torch.lerp(y[:, 1:].gather(1, piece), y.gather(1, piece), weight)
    heights = torch.where(is_applied, heights, grid).flatten()  # samples to be kept are mapped by y = x

    values = rearrange(batch.float(), "b ... -> b (...)") * _INTERVALS
    line = values.int()  # of its own sample; the next line makes it one of all samples' lines
    line += multiples(len(batch), _INTERVALS + 2, torch.int32, batch.device)[:, None]
    line, between = line.flatten(), values.frac_().flatten()
    mapped = heights.index_select(0, line).lerp_(heights[1:].index_select(0, line), between)
    return mapped.view(batch.shape).to(batch.dtype)


@kept
def _curve(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of the control points and of the end at each point of a curve, and the grid to read it at."""
    t = torch.linspace(0, 1, _CURVE_POINTS, device=device)
    # One more than the intervals have ends: that of the intensity 1 has a right neighbour too.
    grid = torch.arange(_INTERVALS + 2, device=device) / _INTERVALS
    return 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3, grid


def paint(batch: Tensor, seeds: Seeds, config: PretextConfig) -> Tensor:
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
    shape, device = tuple(batch.shape[2:]), batch.device
    outside, starts, stops, noise_keys = draw_boxes(shape, seeds, config)
    # A box is the product of intervals, one per axis, and the five boxes of a sample are five bits of one byte: a voxel
    # has the bit of a box along an axis if its coordinate lies in the interval, and `&` over the axes leaves the bits
    # of the boxes that hold the voxel. So the full volume is passed over once for all boxes.
    place, axis = coordinates(shape, starts.device)
    start, stop = torch.stack([starts, stops]).index_select(3, axis)  # each [b, boxes, sum of sides]
    bit = constant(tuple(2**box for box in range(_BOXES)), starts.device)[:, None]
    bits = send((((start <= place) & (place < stop)) * bit).sum(dim=1, dtype=torch.uint8), device)
    along = zip(bits.split(shape, dim=1), _along(len(shape)), strict=True)
    covering = reduce(operator.and_, (of_axis.view(len(batch), *view) for of_axis, view in along))
    # Not `!= 0`, which is slow on a CPU, nor a view, which Triton refuses.
    kind = send(outside, device).view(-1, *(1,) * len(shape))
    painted = covering.clamp_(max=1).bitwise_xor_(kind).bool()  # [b, *spatial]
    # Noise comes from hashes of 32 bits, two values each, in half the memory of `draw_words`.
    values = batch[0].numel() if config.painting_fill == "noise" else 1
    keys = send(noise_keys.int(), device)[:, None]
    counters = multiples(-(-values // 2), GOLDEN_32, torch.int32, device)
    hashed = scramble(counters ^ keys).view(torch.int16)[:, :values]
    fill = (hashed * 2.0**-16).add_(0.5)  # from −1/2 … 1/2 to [0, 1)
    fill = fill.view(batch.shape if values > 1 else (-1, *(1,) * (batch.ndim - 1)))
    return torch.where(painted[:, None], fill.to(batch.dtype), batch)


def draw_boxes(shape: Sequence[int], seeds: Seeds, config: PretextConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    size = constant(tuple(shape), words.device)
    shortest, longest = (size // 6).clamp_min(1), (size // 3).clamp_min(1)
    inner = shortest + take(inner, longest - shortest + 1)[0]
    outer = size - 3 * size // 7 - take(outer, 4 * size // 7 - 3 * size // 7 + 1)[0]
    sides = torch.where(rearrange(outside, "b -> b 1 1"), outer, inner)
    border = ((size - sides) // 2).clamp_max(_BORDER)
    starts = border + take(places, size - sides - 2 * border + 1)[0]
    continues = uniform(words[:, -_BOXES:]) < _ANOTHER
    continues.select(1, 0).logical_or_(outside)  # the first box of out-painting is always there
    used = continues.cumprod(dim=1) * painted[:, None]
    return outside, starts, starts + sides * used[:, :, None], noise_keys


# In the order in which they follow one another. A new deformation is a function and a line here: its probability is
# `config.others["name"]`, which `--set pretext.others.name=0.5` sets, and its random numbers are those of
# `draw_words(seeds, "name", ..., device=batch.device)`, as seeds may lie on the CPU. Runs and cards record it, and what
# the other deformations draw stays as it is.
DEFORMATIONS: dict[str, Callable[[Tensor, Seeds, PretextConfig], Tensor]] = {
    "shuffle": shuffle,
    "intensity": change_intensity,
    "painting": paint,
    "implant": implant,
}
