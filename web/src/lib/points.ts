// The points of the map: where they are, which is under the pointer, and how they are coloured.

import { isInside } from "./mapformat";

export interface Bounds {
  readonly left: number;
  readonly right: number;
  readonly low: number;
  readonly high: number;
}

export function boundsOf(xy: Float32Array): Bounds {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let at = 0; at + 1 < xy.length; at += 2) {
    const x = xy[at] as number;
    const y = xy[at + 1] as number;
    if (x < left) left = x;
    if (x > right) right = x;
    if (y < low) low = y;
    if (y > high) high = y;
  }
  return left > right ? { left: 0, right: 1, low: 0, high: 1 } : { left, right, low, high };
}

/** A grid of buckets over the points: a lookup reads only the buckets it touches. */
export class PointIndex {
  readonly bounds: Bounds;
  readonly #side: number;
  readonly #scaleX: number;
  readonly #scaleY: number;
  readonly #starts: Uint32Array;
  readonly #order: Uint32Array;

  constructor(readonly xy: Float32Array) {
    const count = xy.length / 2;
    this.bounds = boundsOf(xy);
    this.#side = Math.max(1, Math.min(1024, Math.floor(Math.sqrt(count / 4))));
    this.#scaleX = this.#side / Math.max(this.bounds.right - this.bounds.left, 1e-30);
    this.#scaleY = this.#side / Math.max(this.bounds.high - this.bounds.low, 1e-30);
    this.#starts = new Uint32Array(this.#side * this.#side + 1);
    this.#order = new Uint32Array(count);
    this.#fill(count);
  }

  /** Sort the points by bucket: count, sum up, place. */
  #fill(count: number): void {
    const buckets = new Uint32Array(count);
    for (let point = 0; point < count; point++) {
      const bucket = this.#row(this.#y(point)) * this.#side + this.#column(this.#x(point));
      buckets[point] = bucket;
      this.#starts[bucket + 1] = (this.#starts[bucket + 1] as number) + 1;
    }
    for (let bucket = 0; bucket < this.#starts.length - 1; bucket++) {
      this.#starts[bucket + 1] = (this.#starts[bucket + 1] as number) + (this.#starts[bucket] as number);
    }
    const next = this.#starts.slice();
    for (let point = 0; point < count; point++) {
      const bucket = buckets[point] as number;
      const place = next[bucket] as number;
      this.#order[place] = point;
      next[bucket] = place + 1;
    }
  }

  #x(point: number): number {
    return this.xy[2 * point] as number;
  }

  #y(point: number): number {
    return this.xy[2 * point + 1] as number;
  }

  #column(x: number): number {
    return Math.min(this.#side - 1, Math.max(0, Math.floor((x - this.bounds.left) * this.#scaleX)));
  }

  #row(y: number): number {
    return Math.min(this.#side - 1, Math.max(0, Math.floor((y - this.bounds.low) * this.#scaleY)));
  }

  /** The points of a rectangle, at most `limit` of them; more than that is null. */
  within(area: Bounds, limit: number): number[] | null {
    const found: number[] = [];
    for (let row = this.#row(area.low); row <= this.#row(area.high); row++) {
      const from = this.#starts[row * this.#side + this.#column(area.left)] as number;
      const to = this.#starts[row * this.#side + this.#column(area.right) + 1] as number;
      for (let place = from; place < to; place++) {
        const point = this.#order[place] as number;
        const [x, y] = [this.#x(point), this.#y(point)];
        if (x < area.left || x > area.right || y < area.low || y > area.high) continue;
        if (found.length === limit) return null;
        found.push(point);
      }
    }
    return found;
  }

  /** The point nearest to a place, within a distance; -1 for none. */
  nearest(x: number, y: number, distance: number): number {
    const area = { left: x - distance, right: x + distance, low: y - distance, high: y + distance };
    let best = -1;
    let least = distance * distance;
    for (let row = this.#row(area.low); row <= this.#row(area.high); row++) {
      const from = this.#starts[row * this.#side + this.#column(area.left)] as number;
      const to = this.#starts[row * this.#side + this.#column(area.right) + 1] as number;
      for (let place = from; place < to; place++) {
        const point = this.#order[place] as number;
        const squared = (this.#x(point) - x) ** 2 + (this.#y(point) - y) ** 2;
        if (squared <= least) [best, least] = [point, squared];
      }
    }
    return best;
  }
}

export type Rgb = readonly [number, number, number];

/** Colours that can be told apart with colour blindness (Okabe and Ito 2008), then lighter and darker ones. */
export const PALETTE: readonly Rgb[] = [
  [0, 114, 178],
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [213, 94, 0],
  [86, 180, 233],
  [148, 103, 189],
  [140, 86, 75],
  [188, 189, 34],
  [23, 190, 207],
  [227, 119, 194],
  [90, 90, 160],
];
export const NO_VALUE: Rgb = [140, 148, 145];

export function colorOf(code: number): Rgb {
  return code <= 0 ? NO_VALUE : (PALETTE[(code - 1) % PALETTE.length] ?? NO_VALUE);
}

/** The colours of all points; those outside the mask are faint. A bit of the mask is one point, the lowest bit first. */
export function paint(count: number, codes: ArrayLike<number> | null, mask: Uint8Array | null): Uint8Array {
  const colors = new Uint8Array(4 * count);
  for (let point = 0; point < count; point++) {
    const [red, green, blue] = codes === null ? PALETTE[0] as Rgb : colorOf(codes[point] ?? 0);
    const inside = isInside(mask, point);
    colors[4 * point] = red;
    colors[4 * point + 1] = green;
    colors[4 * point + 2] = blue;
    colors[4 * point + 3] = inside ? 210 : 22;
  }
  return colors;
}

/** As many points as can be shown as thumbnails of a size that do not cover each other, at most `most`. */
export function spread(
  points: readonly number[],
  place: (point: number) => readonly [number, number],
  size: number,
  most: number,
): number[] {
  const chosen: number[] = [];
  const taken: (readonly [number, number])[] = [];
  for (const point of points) {
    if (chosen.length === most) break;
    const [x, y] = place(point);
    if (taken.some(([left, top]) => Math.abs(left - x) < size && Math.abs(top - y) < size)) continue;
    taken.push([x, y]);
    chosen.push(point);
  }
  return chosen;
}

/** A line without the points that change nothing at the scale of the screen. */
export function thinned<T extends readonly [number, number]>(line: readonly T[], distance: number): T[] {
  const kept: T[] = [];
  for (const point of line) {
    const last = kept.at(-1);
    if (!last || Math.hypot(point[0] - last[0], point[1] - last[1]) >= distance) kept.push(point);
  }
  return kept;
}
