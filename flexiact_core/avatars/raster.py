"""Triangles to pixels in torch: a z-buffer, colours or textures, soft edges. No display, no driver, any device.

Each triangle gives the samples of its box, those inside it stay, and the nearest at each sample wins; of two equally
near the one listed first, so the same scene gives the same bytes. Shading comes last, once a sample.
Letters: V vertices, N triangles of the mesh, T triangles in view, P (triangle, sample) pairs, S samples hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .avatar import Material
from .camera import Camera
from .colours import to_linear, to_srgb

# Pairs looked at in one go: about 100 bytes each.
CHUNK = 1 << 20
# Where the light comes from, in the world: above, in front, a little from the left.
LIGHT = (-0.35, 0.75, 0.55)


@dataclass(frozen=True, eq=False)
class Mesh:
    """What does not move: faces (N, 3), colours (V, 3) linear 0..1, uvs (V, 2), face_material (N,) into materials."""

    faces: Tensor
    colours: Tensor
    uvs: Tensor
    face_material: Tensor
    materials: tuple[Material, ...]


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Triangles in front of the near plane: seen (T, 3, 3) in the camera's space, face (T,), and what share of the
    face's corners each corner is (T, 3, 3)."""

    seen: Tensor
    face: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class _Planes:
    """Triangles in the picture, T of them, as planes over it: a value at (x, y) is slope . (x, y) + base.

    edges (T, 3, 3): each corner's share, 0..1 inside; values (T, 1 + C, 3): nearness (1 / distance; the distance
    itself of an orthographic camera), then C attributes times nearness (as they are). Measured from origin (T, 2).
    """

    origin: Tensor
    edges: Tensor
    values: Tensor
    material: Tensor
    box: Tensor  # (T, 4) samples: left, top, right, bottom, the last two included
    orthographic: bool


def draw(
    mesh: Mesh,
    points: Tensor,
    normals: Tensor,
    camera: Camera,
    width: int,
    height: int,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    light: float = 0.6,
    antialias: int = 2,
) -> tuple[Tensor, Tensor]:
    """One frame (height, width, 3) in sRGB 0..1, and its mask (height, width), the share of each pixel covered.

    points and normals (V, 3) are in the world; background is sRGB 0..1; light 0 shows plain colours, 1 shades fully;
    antialias squared samples make a pixel. All is computed on the device of `points`. Nothing in view: the background.
    """
    wide, high = width * antialias, height * antialias
    triangles = _in_front(camera.view(points), mesh.faces, camera)
    triangles, pixels = _facing(mesh, triangles, camera.to_pixels(triangles.seen, wide, high))
    planes = _to_planes(mesh, triangles, pixels, _lit(mesh, normals, light), camera.orthographic, wide, high)
    linear = to_linear(torch.tensor(background, device=points.device))
    frame, mask = to_srgb(linear).expand(height, width, 3).clone(), torch.zeros(height, width, device=points.device)
    rows, columns = _region(planes, antialias)
    high, wide = (antialias * (side.stop - side.start) for side in (rows, columns))
    if high * wide:
        planes = _moved(planes, antialias * columns.start, antialias * rows.start)
        colours, coverage = _samples(mesh, planes, linear, wide, high)
        frame[rows, columns] = to_srgb(_average(colours.reshape(high, wide, 3), antialias))
        mask[rows, columns] = _average(coverage.reshape(high, wide, 1), antialias)[..., 0]
    return frame, mask


def _region(planes: _Planes, antialias: int) -> tuple[slice, slice]:
    """Rows and columns of pixels that triangles touch: all else of a picture need not be looked at."""
    box = planes.box[(planes.box[:, 2:] >= planes.box[:, :2]).all(1)]
    if not len(box):
        return slice(0, 0), slice(0, 0)
    left, top = (box[:, :2].amin(0) // antialias).tolist()
    right, bottom = (box[:, 2:].amax(0) // antialias + 1).tolist()
    return slice(top, bottom), slice(left, right)


def _moved(planes: _Planes, x: int, y: int) -> _Planes:
    """The same planes, where sample (x, y) is the first."""
    step = torch.tensor([x, y], device=planes.box.device)
    return replace(planes, origin=planes.origin - step, box=planes.box - step.repeat(2))


def _samples(mesh: Mesh, planes: _Planes, background: Tensor, wide: int, high: int) -> tuple[Tensor, Tensor]:
    """Linear colours (wide * high, 3) of all samples, and 1 for those hit (wide * high,)."""
    nearest = _nearest(mesh, planes, wide, high)
    hit = nearest >= 0
    samples = hit.nonzero()[:, 0]
    colours = background.expand(wide * high, 3).clone()
    if len(samples):
        colours[samples] = _shade(mesh, planes, nearest[samples], samples, wide)
    return colours, hit.to(colours)


def is_inside(place: tuple[float, float, float], points: Tensor, faces: Tensor) -> bool:
    """Whether `place` is inside the surface: the triangles, seen from it, face away all around.

    The winding number, as a sum of solid angles (van Oosterom and Strackee 1983). A room whose walls face inwards has
    -1, so a camera may stand in it.
    """
    a, b, c = (points[faces] - torch.tensor(place).to(points)).unbind(1)
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    triple = (a * torch.linalg.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return float(torch.atan2(triple, below).sum()) / (2 * math.pi) > 0.5


def _in_front(seen: Tensor, faces: Tensor, camera: Camera) -> _Triangles:
    """The triangles between near and far; those that cross the near plane are cut there, into one or two."""
    corners = seen[faces]
    depth = corners[..., 2]
    ahead = depth > camera.near
    shown = (depth < camera.far).any(1)
    whole = (ahead.all(1) & shown).nonzero()[:, 0]
    eye = torch.eye(3, device=seen.device)
    pieces = [_Triangles(corners[whole], whole, eye.expand(len(whole), 3, 3))]
    for count in (1, 2):  # corners ahead of the plane
        cut = ((ahead.sum(1) == count) & shown).nonzero()[:, 0]
        if len(cut):
            pieces.append(_cut(corners[cut], cut, ahead[cut], count, camera.near))
    return _Triangles(*(torch.cat([getattr(p, name) for p in pieces]) for name in ("seen", "face", "share")))


def _cut(corners: Tensor, face: Tensor, ahead: Tensor, count: int, near: float) -> _Triangles:
    # Turned so that the odd corner comes first: the one ahead, or the one behind.
    odd = (ahead if count == 1 else ~ahead).float().argmax(1)
    turn = (odd[:, None] + torch.arange(3, device=odd.device)) % 3
    corners = corners.gather(1, turn[..., None].expand(-1, -1, 3))
    share = torch.eye(3, device=corners.device)[turn]
    z = corners[..., 2]
    ends = []
    for other in (1, 2):  # where the plane cuts the edges from the odd corner
        t = ((near - z[:, 0]) / (z[:, other] - z[:, 0]))[:, None]
        ends.append((torch.lerp(corners[:, 0], corners[:, other], t), torch.lerp(share[:, 0], share[:, other], t)))
    (p1, s1), (p2, s2) = ends
    if count == 1:
        return _Triangles(torch.stack([corners[:, 0], p1, p2], 1), face, torch.stack([share[:, 0], s1, s2], 1))
    quads = [(p1, corners[:, 1], corners[:, 2]), (p1, corners[:, 2], p2)]
    parts = [(s1, share[:, 1], share[:, 2]), (s1, share[:, 2], s2)]
    return _Triangles(
        torch.cat([torch.stack(quad, 1) for quad in quads]),
        face.repeat(2),
        torch.cat([torch.stack(part, 1) for part in parts]),
    )


def _facing(mesh: Mesh, triangles: _Triangles, pixels: Tensor) -> tuple[_Triangles, Tensor]:
    """Without triangles of no area, and without backs, save of double-sided materials."""
    a, b = pixels[:, 1, :2] - pixels[:, 0, :2], pixels[:, 2, :2] - pixels[:, 0, :2]
    # y runs down, so a triangle whose corners run against the clock in the world has a negative area here.
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    both = torch.tensor([material.double_sided for material in mesh.materials], device=pixels.device)
    keep = (area < -1e-12) | ((area > 1e-12) & both[mesh.face_material[triangles.face]])
    keep = (keep & torch.isfinite(pixels).all(-1).all(-1)).nonzero()[:, 0]
    kept = _Triangles(*(getattr(triangles, name)[keep] for name in ("seen", "face", "share")))
    return kept, pixels[keep]


def _lit(mesh: Mesh, normals: Tensor, light: float) -> Tensor:
    """(V, 2): how bright the light makes each vertex, and 1 where nothing lights it."""
    towards = torch.tensor(LIGHT).to(normals)
    # Half Lambert: what faces away is dim, not black, as in a room with walls.
    lit = 0.2 + 0.85 * (0.5 + 0.5 * (normals @ (towards / towards.norm())))
    return torch.stack([1 + light * (lit - 1), torch.ones_like(lit)], 1)


def _to_planes(
    mesh: Mesh, triangles: _Triangles, pixels: Tensor, lit: Tensor, orthographic: bool, wide: int, high: int
) -> _Planes:
    """Colours, light included, and with textures their coordinates, become planes over the picture."""
    material, corners = mesh.face_material[triangles.face], mesh.faces[triangles.face]
    unlit = torch.tensor([entry.unlit for entry in mesh.materials], device=pixels.device)
    bright = torch.where(unlit[material][:, None], lit[corners, 1], lit[corners, 0])
    attributes = [mesh.colours[corners] * bright[..., None]]
    if any(entry.texture is not None for entry in mesh.materials):
        attributes.append(mesh.uvs[corners])
    attributes = triangles.share @ torch.cat(attributes, -1)
    depth = pixels[..., 2:]
    values = torch.cat([depth, attributes], -1) if orthographic else torch.cat([1 / depth, attributes / depth], -1)
    origin = pixels[:, 0, :2]
    a, b = pixels[:, 1, :2] - origin, pixels[:, 2, :2] - origin
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])[:, None]
    second, third = torch.stack([b[:, 1], -b[:, 0]], 1) / area, torch.stack([-a[:, 1], a[:, 0]], 1) / area
    slopes = torch.stack([-second - third, second, third], 1)
    base = torch.tensor([1.0, 0.0, 0.0], device=pixels.device).expand(len(area), 3)
    low, top = (pixels[..., :2].amin(1) - 0.5).ceil(), (pixels[..., :2].amax(1) - 0.5).floor()
    last = torch.tensor([wide - 1, high - 1], device=pixels.device)
    box = torch.cat([torch.minimum(low.clamp_min(0), last + 1), torch.minimum(top.clamp_min(-1), last)], 1).long()
    edges = torch.cat([slopes, base[..., None]], -1)
    return _Planes(origin, edges, values.transpose(1, 2) @ edges, material, box, orthographic)


def _nearest(mesh: Mesh, planes: _Planes, wide: int, high: int) -> Tensor:
    """(wide * high,): the triangle seen at each sample, -1 for none."""
    device = planes.origin.device
    depth = torch.zeros(wide * high, device=device)
    winner = torch.full((wide * high,), -1, dtype=torch.long, device=device)
    size = (planes.box[:, 2:] - planes.box[:, :2] + 1).clamp_min(0)
    listed = (size.prod(1) > 0).nonzero()[:, 0]
    ends = size[listed].prod(1).cumsum(0)
    start = 0
    while start < len(listed):
        done = int(ends[start - 1]) if start else 0
        # At least one triangle, even if it alone has more samples than a chunk.
        stop = max(int(torch.searchsorted(ends, done + CHUNK, right=True)), start + 1)
        found = _samples_of(planes, listed[start:stop], wide)
        _keep_nearest(depth, winner, *_not_see_through(mesh, planes, wide, *found))
        start = stop
    return winner


def _samples_of(planes: _Planes, chosen: Tensor, wide: int) -> tuple[Tensor, Tensor, Tensor]:
    """(triangle, sample, nearness) of the samples inside the chosen triangles: row by row, from edge to edge."""
    left, top, right, bottom = planes.box[chosen].unbind(1)
    rows = bottom - top + 1
    which = torch.repeat_interleave(torch.arange(len(chosen), device=rows.device), rows)
    y = top[which] + _counted(rows, len(which))
    triangle = chosen[which]
    edges = planes.edges[triangle]
    # A hair outside counts as inside, so that no sample falls between two triangles with a common edge.
    height = edges[..., 1] * (y + 0.5 - planes.origin[triangle, 1])[:, None] + edges[..., 2] + 1e-5
    crossing = planes.origin[triangle, :1] - 0.5 - height / edges[..., 0]
    enters = torch.where(edges[..., 0] > 0, crossing, -torch.inf).amax(1)
    leaves = torch.where(edges[..., 0] < 0, crossing, torch.inf).amin(1)
    missed = ((edges[..., 0] == 0) & (height < 0)).any(1)
    first = torch.maximum(enters.ceil(), left[which].float())
    length = torch.minimum(leaves.floor(), right[which].float()) - first + 1
    length = torch.where(missed, torch.zeros_like(length), length.clamp_min(0)).long()
    near = planes.values[triangle, 0]
    at_first = near[:, 0] * (first + 0.5 - planes.origin[triangle, 0])
    at_first += near[:, 1] * (y + 0.5 - planes.origin[triangle, 1]) + near[:, 2]
    span = torch.repeat_interleave(torch.arange(len(y), device=y.device), length)
    along = _counted(length, len(span))
    value = torch.addcmul(at_first[span], near[:, 0][span], along.to(near))
    sample = (y * wide + first.clamp(0, wide).long())[span] + along
    return triangle[span], sample, 1 / value.clamp_min(1e-12) if planes.orthographic else value


def _counted(lengths: Tensor, total: int) -> Tensor:
    """(total,): 0, 1, ... anew for each of `lengths`, whose sum is total."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(total, device=lengths.device) - torch.repeat_interleave(starts, lengths)


def _keep_nearest(depth: Tensor, winner: Tensor, which: Tensor, sample: Tensor, near: Tensor) -> None:
    """Updates both buffers: the nearest triangle a sample; of equally near ones the first."""
    before = depth.clone()
    depth.scatter_reduce_(0, sample, near, "amax")
    best = (near == depth[sample]).nonzero()[:, 0]
    # Those that were beaten start anew; a tie with an earlier chunk leaves the earlier, lower number.
    winner.masked_fill_(depth > before, torch.iinfo(torch.long).max)
    winner.scatter_reduce_(0, sample[best], which[best], "amin")


def _not_see_through(mesh: Mesh, planes: _Planes, wide: int, *found: Tensor) -> tuple[Tensor, ...]:
    """`found` without the samples where a material's alpha is below its cutoff."""
    if all(entry.cutoff is None for entry in mesh.materials):
        return found
    which, sample, _ = found
    material = planes.material[which]
    keep = torch.ones_like(which, dtype=torch.bool)
    for index, entry in enumerate(mesh.materials):
        own = (material == index).nonzero()[:, 0] if entry.cutoff is not None else []
        if len(own) and entry.texture is None:
            keep[own] = entry.alpha >= entry.cutoff
        elif len(own):
            uvs = _attributes(planes, which[own], sample[own], wide)[:, 3:]
            keep[own] = entry.alpha * _texel(entry.texture, uvs)[:, 3] / 255 >= entry.cutoff
    return tuple(values[keep] for values in found)


def _attributes(planes: _Planes, which: Tensor, sample: Tensor, wide: int) -> Tensor:
    """(S, C) at the samples: straight over the surface, so not over a picture in perspective."""
    y = torch.div(sample, wide, rounding_mode="floor")
    origin = planes.origin[which]
    place = torch.stack([sample - y * wide + 0.5 - origin[:, 0], y + 0.5 - origin[:, 1]], 1)
    values = planes.values[which]
    values = torch.addcmul(values[..., 2], values[..., 0], place[:, :1]).addcmul_(values[..., 1], place[:, 1:])
    return values[:, 1:] if planes.orthographic else values[:, 1:] / values[:, :1]


def _shade(mesh: Mesh, planes: _Planes, which: Tensor, sample: Tensor, wide: int) -> Tensor:
    """(S, 3) linear colours: vertex colour and light, times texture."""
    values = _attributes(planes, which, sample, wide)
    colours = values[:, :3].clamp(0, 1)
    for index, entry in enumerate(mesh.materials):
        if entry.texture is not None:
            own = (planes.material[which] == index).nonzero()[:, 0]
            colours[own] *= to_linear(_texel(entry.texture, values[own, 3:])[:, :3] / 255)
    return colours


def _texel(texture: Tensor, uvs: Tensor) -> Tensor:
    """(S, 4) 0..255: the four nearest texels mixed; repeated outside 0..1."""
    height, width = texture.shape[:2]
    x, y = uvs[:, 0] * width - 0.5, uvs[:, 1] * height - 0.5
    left, above = x.floor(), y.floor()
    right_share, below_share = (x - left)[:, None], (y - above)[:, None]
    columns = [(left.long() + step) % width for step in (0, 1)]
    rows = [(above.long() + step) % height for step in (0, 1)]
    upper, lower = (
        torch.lerp(texture[row, columns[0]].float(), texture[row, columns[1]].float(), right_share) for row in rows
    )
    return torch.lerp(upper, lower, below_share)


def _average(samples: Tensor, side: int) -> Tensor:
    parts = [samples[row::side, column::side] for row in range(side) for column in range(side)]
    return sum(parts[1:], parts[0]) / len(parts)


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one, vertices in the order given."""
    vertices = materials = 0
    moved = []
    for mesh in meshes:
        moved.append(replace(mesh, faces=mesh.faces + vertices, face_material=mesh.face_material + materials))
        vertices, materials = vertices + len(mesh.colours), materials + len(mesh.materials)
    tensors = (
        torch.cat([getattr(mesh, name) for mesh in moved]) for name in ("faces", "colours", "uvs", "face_material")
    )
    return Mesh(*tensors, tuple(material for mesh in meshes for material in mesh.materials))
