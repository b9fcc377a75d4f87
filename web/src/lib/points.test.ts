import { describe, expect, it } from "vitest";

import { boundsOf, colorOf, NO_VALUE, paint, PointIndex, spread, thinned } from "./points";

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
}

function cloud(count: number, seed: number): Float32Array {
  const next = random(seed);
  return Float32Array.from({ length: 2 * count }, () => next() ** 3 * 20 - 5);
}

describe("the index of points", () => {
  it("finds what a scan of all points finds", () => {
    const xy = cloud(3000, 1);
    const index = new PointIndex(xy);
    const next = random(2);
    for (let trial = 0; trial < 200; trial++) {
      const [x, y, d] = [next() * 24 - 7, next() * 24 - 7, next() * 2];
      const area = { left: x - d, right: x + d, low: y - d, high: y + d };
      const all = Array.from({ length: 3000 }, (_, point) => point);
      const inside = all.filter((p) => {
        const [px, py] = [xy[2 * p] ?? NaN, xy[2 * p + 1] ?? NaN];
        return px >= area.left && px <= area.right && py >= area.low && py <= area.high;
      });
      expect(index.within(area, 5000)?.sort((a, b) => a - b)).toEqual(inside);
      const far = (p: number) => Math.hypot((xy[2 * p] ?? NaN) - x, (xy[2 * p + 1] ?? NaN) - y);
      const nearest = all.reduce((best, p) => (far(p) < far(best) ? p : best), 0);
      const found = index.nearest(x, y, d);
      expect(found < 0 ? Infinity : far(found)).toBe(far(nearest) <= d ? far(nearest) : Infinity);
    }
  });

  it("says when there are too many", () => {
    const index = new PointIndex(cloud(100, 3));
    expect(index.within(index.bounds, 99)).toBeNull();
    expect(index.within(index.bounds, 100)).toHaveLength(100);
  });

  it("bears no points, one point, and points at one place", () => {
    expect(boundsOf(new Float32Array())).toEqual({ left: 0, right: 1, low: 0, high: 1 });
    expect(new PointIndex(new Float32Array()).nearest(0, 0, 1)).toBe(-1);
    expect(new PointIndex(Float32Array.of(3, 4)).nearest(3.1, 4, 0.2)).toBe(0);
    const same = new PointIndex(new Float32Array(200).fill(2));
    expect(same.within({ left: 1, right: 3, low: 1, high: 3 }, 100)).toHaveLength(100);
  });
});

it("paints by code and fades what the mask leaves out", () => {
  const colors = paint(3, [0, 1, 13], Uint8Array.of(0b101));
  expect([...colors.slice(0, 3)]).toEqual([...NO_VALUE]);
  expect([...colors.slice(4, 7)]).toEqual([...colorOf(1)]);
  expect([...colors.slice(8, 11)]).toEqual([...colorOf(1)]);
  expect([colors[3], colors[7], colors[11]].map((alpha) => (alpha ?? 0) > 100)).toEqual([true, false, true]);
});

it("chooses thumbnails that do not cover each other", () => {
  const places: readonly (readonly [number, number])[] = [[0, 0], [9, 9], [11, 1], [0, 30]];
  const place = (point: number) => places[point] ?? ([0, 0] as const);
  expect(spread([0, 1, 2, 3], place, 10, 9)).toEqual([0, 2, 3]);
  expect(spread([0, 1, 2, 3], place, 10, 2)).toEqual([0, 2]);
});

it("thins a line", () => {
  expect(thinned([[0, 0], [1, 0], [5, 0], [6, 0], [12, 0]], 5)).toEqual([[0, 0], [5, 0], [12, 0]]);
});
