"""Pieces of a skinned mesh: cut along a level, smoothed, grown, and reduced to fewer triangles."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Part:
    """points (V, 3), faces (N, 3), and weights (V, B) of the bones; colour (3,) in sRGB 0..1.

    open: its inside can be seen, as of a skirt from below.
    """

    points: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    open: bool = False

    @property
    def normals(self) -> np.ndarray:
        """(V, 3): of the smooth surface, weighted by area."""
        a, b, c = (self.points[self.faces[:, corner]] for corner in range(3))
        across = np.cross(b - a, c - a)
        total = np.zeros_like(self.points)
        for corner in range(3):
            np.add.at(total, self.faces[:, corner], across)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)

    @property
    def border(self) -> np.ndarray:
        """(V,) bool: vertices on an edge that only one triangle has."""
        edges = np.sort(np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]), axis=1)
        found, count = np.unique(edges, axis=0, return_counts=True)
        marked = np.zeros(len(self.points), bool)
        marked[found[count == 1].ravel()] = True
        return marked


def compact(part: Part) -> Part:
    """Without vertices that no triangle uses."""
    used, faces = np.unique(part.faces, return_inverse=True)
    return replace(part, points=part.points[used], weights=part.weights[used], faces=faces.reshape(-1, 3))


def cut(part: Part, field: np.ndarray) -> Part:
    """The side where `field` (V,) is over 0; triangles across it are cut in two along the line where it is 0."""
    points, weights = list(part.points), list(part.weights)
    made: dict[tuple[int, int], int] = {}

    def between(inner: int, outer: int) -> int:
        if (inner, outer) not in made:
            t = field[inner] / (field[inner] - field[outer])
            points.append(part.points[inner] * (1 - t) + part.points[outer] * t)
            weights.append(part.weights[inner] * (1 - t) + part.weights[outer] * t)
            made[inner, outer] = len(points) - 1
        return made[inner, outer]

    faces = []
    for face in part.faces.tolist():
        inside = [field[corner] > 0 for corner in face]
        if all(inside):
            faces.append(face)
        elif any(inside):
            ring = []
            for corner in range(3):
                here, there = face[corner], face[(corner + 1) % 3]
                if inside[corner]:
                    ring.append(here)
                if inside[corner] != inside[(corner + 1) % 3]:
                    ring.append(between(*((here, there) if inside[corner] else (there, here))))
            faces += [[ring[0], ring[k - 1], ring[k]] for k in range(2, len(ring))]
    return compact(replace(part, points=np.array(points), weights=np.array(weights), faces=np.array(faces, int)))


def smooth(part: Part, rounds: int, share: float = 0.5) -> Part:
    """Each vertex moved towards the mean of its neighbours; the border stays."""
    pairs = np.concatenate([part.faces[:, [0, 1]], part.faces[:, [1, 2]], part.faces[:, [2, 0]]])
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    count = np.bincount(pairs[:, 0], minlength=len(part.points))[:, None]
    move = np.where(part.border, 0.0, share)[:, None]
    points = part.points
    for _ in range(rounds):
        total = np.zeros_like(points)
        np.add.at(total, pairs[:, 0], points[pairs[:, 1]])
        points = points + move * (total / np.maximum(count, 1) - points)
    return replace(part, points=points)


def grow(part: Part, metres: np.ndarray | float) -> Part:
    """Moved out along the normals."""
    return replace(part, points=part.points + part.normals * np.reshape(metres, (-1, 1)))


def reduce_faces(part: Part, count: int) -> Part:
    """About `count` triangles: edges are drawn together where that moves the surface least; borders hold.

    Source: Garland and Heckbert 1997, with end points and middles as candidates.
    """
    return _Reduction(part).run(count)


class _Reduction:
    def __init__(self, part: Part):
        self.part = part
        self.points = [tuple(point) for point in part.points.tolist()]
        self.weights = [row for row in part.weights]
        self.faces = {index: tuple(face) for index, face in enumerate(part.faces.tolist())}
        self.around: list[set[int]] = [set() for _ in self.points]
        for index, face in self.faces.items():
            for corner in face:
                self.around[corner].add(index)
        self.stamp = [0] * len(self.points)
        self.quadrics = self._quadrics()
        self.heap: list = []

    def run(self, count: int) -> Part:
        for vertex in range(len(self.points)):
            self._push(vertex, lower_only=True)
        while len(self.faces) > count and self.heap:
            _, a, b, stamp_a, stamp_b, place, share = heapq.heappop(self.heap)
            if (self.stamp[a], self.stamp[b]) == (stamp_a, stamp_b) and self._allowed(a, b, place):
                self._collapse(a, b, place, share)
        faces = np.array([self.faces[index] for index in sorted(self.faces)])
        return compact(replace(self.part, points=np.array(self.points), weights=np.array(self.weights), faces=faces))

    def _quadrics(self) -> list[np.ndarray]:
        quadrics = [np.zeros((4, 4)) for _ in self.points]
        points = self.part.points
        ones: dict[tuple[int, int], list[int]] = {}
        for index, face in self.faces.items():
            across = np.cross(points[face[1]] - points[face[0]], points[face[2]] - points[face[0]])
            area = np.linalg.norm(across)
            if area < 1e-14:
                continue
            plane = np.append(across / area, -across @ points[face[0]] / area)
            for corner in face:
                quadrics[corner] += area * np.outer(plane, plane)
            for k in range(3):
                ones.setdefault(tuple(sorted((face[k], face[(k + 1) % 3]))), []).append(index)
        for (a, b), owners in ones.items():
            if len(owners) == 1:  # a wall along the border keeps it where it is
                face = self.faces[owners[0]]
                normal = np.cross(points[face[1]] - points[face[0]], points[face[2]] - points[face[0]])
                wall = np.cross(points[b] - points[a], normal)
                length = np.linalg.norm(wall)
                if length > 1e-14:
                    plane = np.append(wall / length, -wall @ points[a] / length)
                    for corner in (a, b):
                        quadrics[corner] += 300 * np.sum((points[b] - points[a]) ** 2) * np.outer(plane, plane)
        return quadrics

    def _neighbours(self, vertex: int) -> set[int]:
        return {corner for face in self.around[vertex] for corner in self.faces[face]} - {vertex}

    def _push(self, vertex: int, lower_only: bool = False) -> None:
        for other in sorted(self._neighbours(vertex)):
            if lower_only and other < vertex:
                continue
            a, b = sorted((vertex, other))
            quadric = self.quadrics[a] + self.quadrics[b]
            first, last = np.array(self.points[a]), np.array(self.points[b])
            best = None
            for share in (0.5, 0.0, 1.0):
                place = np.append(first * (1 - share) + last * share, 1.0)
                cost = float(place @ quadric @ place)
                if best is None or cost < best[0]:
                    best = cost, tuple(place[:3]), share
            cost, place, share = best
            heapq.heappush(self.heap, (cost, a, b, self.stamp[a], self.stamp[b], place, share))

    def _allowed(self, a: int, b: int, place: tuple) -> bool:
        shared = self.around[a] & self.around[b]
        if len(self._neighbours(a) & self._neighbours(b)) != len(shared) or not shared:
            return False
        for vertex in (a, b):
            for index in self.around[vertex] - shared:
                corners = [self.points[corner] for corner in self.faces[index]]
                moved = [place if corner == vertex else self.points[corner] for corner in self.faces[index]]
                before, after = _across(*corners), _across(*moved)
                if _dot(before, after) <= 0.3 * (_dot(before, before) * _dot(after, after)) ** 0.5:
                    return False
        return True

    def _collapse(self, a: int, b: int, place: tuple, share: float) -> None:
        for index in self.around[a] & self.around[b]:
            for corner in self.faces.pop(index):
                self.around[corner].discard(index)
        for index in self.around[b]:
            self.faces[index] = tuple(a if corner == b else corner for corner in self.faces[index])
            self.around[a].add(index)
        self.around[b] = set()
        self.points[a], self.quadrics[a] = place, self.quadrics[a] + self.quadrics[b]
        self.weights[a] = self.weights[a] * (1 - share) + self.weights[b] * share
        self.stamp[b] += 1
        for vertex in (a, *sorted(self._neighbours(a))):
            self.stamp[vertex] += 1
        for vertex in (a, *sorted(self._neighbours(a))):
            self._push(vertex)


def _across(a: tuple, b: tuple, c: tuple) -> tuple[float, float, float]:
    """The normal of a triangle, as long as twice its area. Plain numbers: numpy takes ten times as long for three."""
    u, v = [q - p for p, q in zip(a, b)], [q - p for p, q in zip(a, c)]
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


def _dot(a: tuple, b: tuple) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
