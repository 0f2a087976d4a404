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
    planes = _planes(pixels, camera.orthographic)
    nearest = _nearest(mesh, triangles, pixels, planes, camera, wide, high)
    samples = (nearest >= 0).nonzero()[:, 0]
    coverage = torch.zeros(wide * high, device=points.device)
    colours = torch.tensor(background, device=points.device).expand(wide * high, 3)
    colours = _to_linear(colours).clone()
    if len(samples):
        coverage[samples] = 1.0
        corner = _corner_shares(triangles, planes, nearest[samples], samples, camera, wide)
        colours[samples] = _shade(mesh, triangles.face[nearest[samples]], corner, normals, light)
    frame = _average(colours.reshape(high, wide, 3), antialias)
    return _to_srgb(frame), _average(coverage.reshape(high, wide, 1), antialias)[..., 0]


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


def _planes(pixels: Tensor, orthographic: bool) -> Tensor:
    """(T, 3, 3): for each corner the plane x, y, 1 -> its share at a sample, measured from the first corner.

    The second row less the others gives the first; the third plane is of 1 / distance, or of the distance itself.
    """
    origin = pixels[:, 0, :2]
    a, b = pixels[:, 1, :2] - origin, pixels[:, 2, :2] - origin
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])[:, None]
    second = torch.stack([b[:, 1], -b[:, 0]], 1) / area
    third = torch.stack([-a[:, 1], a[:, 0]], 1) / area
    depth = pixels[..., 2] if orthographic else 1 / pixels[..., 2]
    slope = second * (depth[:, 1:2] - depth[:, :1]) + third * (depth[:, 2:] - depth[:, :1])
    zero = torch.zeros_like(area)
    rows = [torch.cat([second, zero], 1), torch.cat([third, zero], 1), torch.cat([slope, depth[:, :1]], 1)]
    return torch.cat([torch.stack(rows, 1), torch.cat([origin, zero], 1)[:, None]], 1)


def _evaluate(planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(P, 3): second and third corner's share, and depth's plane, of planes (P, 4, 3) at the middles of samples."""
    x, y = x + 0.5 - planes[:, 3, 0], y + 0.5 - planes[:, 3, 1]
    return planes[:, :3, 0] * x[:, None] + planes[:, :3, 1] * y[:, None] + planes[:, :3, 2]


def _nearest(
    mesh: Mesh, triangles: _Triangles, pixels: Tensor, planes: Tensor, camera: Camera, wide: int, high: int
) -> Tensor:
    """(wide * high,): the triangle seen at each sample, -1 for none."""
    device = pixels.device
    low = (pixels[..., :2].amin(1) - 0.5).ceil().clamp_min(0)
    top = torch.tensor([wide - 1, high - 1], device=device)
    size = ((torch.minimum((pixels[..., :2].amax(1) - 0.5).floor(), top) - low) + 1).clamp_min(0).long()
    low = low.clamp_max(2.0**20).long()
    area = size[:, 0] * size[:, 1]
    depth = torch.zeros(wide * high, device=device)
    winner = torch.full((wide * high,), -1, dtype=torch.long, device=device)
    listed = area.nonzero()[:, 0]
    ends = area[listed].cumsum(0)
    start = 0
    while start < len(listed):
        done = int(ends[start - 1]) if start else 0
        # At least one triangle, even if it alone has more samples than a chunk.
        stop = max(int(torch.searchsorted(ends, done + CHUNK, right=True)), start + 1)
        chosen = listed[start:stop]
        found = _samples_of(chosen, low, size, planes, camera, wide)
        _keep_nearest(depth, winner, *_not_see_through(mesh, triangles, planes, camera, wide, *found))
        start = stop
    return winner


def _samples_of(
    chosen: Tensor, low: Tensor, size: Tensor, planes: Tensor, camera: Camera, wide: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(triangle, sample, nearness) of the samples inside the chosen triangles, within near and far."""
    area = size[chosen, 0] * size[chosen, 1]
    which = torch.repeat_interleave(chosen, area)
    first = torch.repeat_interleave(area.cumsum(0) - area, area)
    at = torch.arange(len(which), device=which.device) - first
    across = size[which, 0]
    row = torch.div(at, across, rounding_mode="floor")
    x, y = low[which, 0] + at - row * across, low[which, 1] + row
    values = _evaluate(planes[which], x, y)
    # A hair outside counts as inside, so that no sample falls between two triangles with a common edge.
    inside = (values[:, 0] > -1e-5) & (values[:, 1] > -1e-5) & (values[:, 0] + values[:, 1] < 1 + 1e-5)
    inside &= values[:, 2] > 0
    kept = inside.nonzero()[:, 0]
    near = values[kept, 2]
    return which[kept], y[kept] * wide + x[kept], 1 / near if camera.orthographic else near


def _keep_nearest(depth: Tensor, winner: Tensor, which: Tensor, sample: Tensor, near: Tensor) -> None:
    """Updates both buffers: the nearest triangle a sample; of equally near ones the first."""
    before = depth.clone()
    depth.scatter_reduce_(0, sample, near, "amax")
    best = near == depth[sample]
    which, sample = which[best], sample[best]
    # Those that were beaten start anew; a tie with an earlier chunk leaves the earlier, lower number.
    winner[depth > before] = torch.iinfo(torch.long).max
    winner.scatter_reduce_(0, sample, which, "amin")


def _not_see_through(
    mesh: Mesh, triangles: _Triangles, planes: Tensor, camera: Camera, wide: int, *found: Tensor
) -> tuple[Tensor, ...]:
    """`found` without the samples where a material's alpha is below its cutoff."""
    which, sample, _ = found
    face = triangles.face[which]
    material = mesh.face_material[face]
    keep = torch.ones_like(which, dtype=torch.bool)
    for index, entry in enumerate(mesh.materials):
        if entry.cutoff is None:
            continue
        own = (material == index).nonzero()[:, 0]
        if len(own):
            corner = _corner_shares(triangles, planes, which[own], sample[own], camera, wide)
            uvs = (mesh.uvs[mesh.faces[face[own]]] * corner[..., None]).sum(1)
            alpha = entry.alpha if entry.texture is None else entry.alpha * _texel(entry.texture, uvs)[:, 3] / 255
            keep[own] = torch.as_tensor(alpha, device=keep.device) >= entry.cutoff
    return tuple(values[keep] for values in found)


def _corner_shares(
    triangles: _Triangles, planes: Tensor, which: Tensor, sample: Tensor, camera: Camera, wide: int
) -> Tensor:
    """(S, 3): how much of each corner of the mesh's face is at the samples; straight in the world, not the picture."""
    y = torch.div(sample, wide, rounding_mode="floor")
    values = _evaluate(planes[which], sample - y * wide, y)
    shares = torch.stack([1 - values[:, 0] - values[:, 1], values[:, 0], values[:, 1]], 1).clamp_min(0)
    if not camera.orthographic:
        shares = shares / triangles.seen[which][..., 2]
    shares = shares / shares.sum(1, keepdim=True)
    return (shares[..., None] * triangles.share[which]).sum(1)


def _shade(mesh: Mesh, face: Tensor, corner: Tensor, normals: Tensor, light: float) -> Tensor:
    """(S, 3) linear colours: vertex colour times texture times light."""
    corners = mesh.faces[face]
    colours = (mesh.colours[corners] * corner[..., None]).sum(1)
    material = mesh.face_material[face]
    shaded = torch.ones_like(material, dtype=torch.bool)
    for index, entry in enumerate(mesh.materials):
        if entry.texture is None and not entry.unlit:
            continue
        own = (material == index).nonzero()[:, 0]
        if len(own) and entry.texture is not None:
            uvs = (mesh.uvs[corners[own]] * corner[own][..., None]).sum(1)
            colours[own] *= _to_linear(_texel(entry.texture, uvs)[:, :3] / 255)
        shaded[own] = not entry.unlit
    normal = (normals[corners] * corner[..., None]).sum(1)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    towards = torch.tensor(LIGHT).to(normal)
    # Half Lambert: what faces away is dim, not black, as in a room with walls.
    lit = 0.2 + 0.85 * (0.5 + 0.5 * (normal @ (towards / towards.norm())))
    strength = torch.where(shaded, 1 + light * (lit - 1), torch.ones_like(lit))
    return (colours * strength[:, None]).clamp(0, 1)


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
    height, width, channels = samples.shape
    return samples.reshape(height // side, side, width // side, side, channels).mean((1, 3))


def _to_linear(colours: Tensor) -> Tensor:
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def _to_srgb(colours: Tensor) -> Tensor:
    curved = 1.055 * colours.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(colours <= 0.0031308, colours * 12.92, curved).clamp(0, 1)


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one, vertices in the order given."""
    vertices = materials = 0
    moved = []
    for mesh in meshes:
        moved.append(
            replace(mesh, faces=mesh.faces + vertices, face_material=mesh.face_material + materials)
        )
        vertices, materials = vertices + len(mesh.colours), materials + len(mesh.materials)
    tensors = (torch.cat([getattr(mesh, name) for mesh in moved]) for name in ("faces", "colours", "uvs", "face_material"))
    return Mesh(*tensors, tuple(material for mesh in meshes for material in mesh.materials))
