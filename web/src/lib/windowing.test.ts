import { describe, expect, it } from "vitest";

import * as w from "./windowing";

const small: w.Layout = { total: 1000, columns: 8, rowHeight: 150, viewport: 600 };
const million: w.Layout = { total: 1_000_000, columns: 3, rowHeight: 130, viewport: 700 };
const top = { physical: 0, virtual: 0 };

describe("a grid that fits the browser", () => {
  it("scrolls one to one", () => {
    expect(w.scrollHeight(small)).toBe(125 * 150);
    expect(w.scrolled(small, top, 450)).toEqual({ physical: 450, virtual: 450 });
  });

  it("shows the rows on the screen and two more on each side", () => {
    expect(w.visibleItems(small, 3000)).toEqual({ start: 18 * 8, end: 26 * 8 });
    expect(w.visibleItems(small, 0)).toEqual({ start: 0, end: 6 * 8 });
    expect(w.visibleItems({ ...small, total: 10 }, 0)).toEqual({ start: 0, end: 10 });
  });
});

describe("a million items in three columns", () => {
  it("has a scrollbar of the largest allowed length", () => {
    expect(w.contentHeight(million)).toBeGreaterThan(43_000_000);
    expect(w.scrollHeight(million)).toBe(w.MAX_HEIGHT);
  });

  it("moves by pixels with the wheel and in proportion with the scrollbar", () => {
    const wheel = w.scrolled(million, top, 100);
    expect(wheel.virtual).toBe(100);
    const middle = w.scrolled(million, wheel, (w.MAX_HEIGHT - 700) / 2);
    expect(middle.virtual).toBeCloseTo((w.contentHeight(million) - 700) / 2, 3);
    expect(w.scrolled(million, middle, middle.physical + 100).virtual).toBeCloseTo(middle.virtual + 100, 6);
  });

  it("reaches the last item", () => {
    const end = w.scrolled(million, top, w.MAX_HEIGHT);
    expect(w.visibleItems(million, end.virtual).end).toBe(1_000_000);
    expect(w.topOf(million, end, 999_999) + 130).toBeCloseTo(w.MAX_HEIGHT, 6);
  });

  it("never draws outside the scrolled element, wherever a walk of wheel and scrollbar ends", () => {
    let state: w.ScrollState = top;
    let seed = 7;
    for (let step = 0; step < 2000; step++) {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      const jump = seed % 10 === 0 ? (seed / 2147483648) * w.MAX_HEIGHT : state.physical + (seed % 400) - 200;
      state = w.placed(million, w.scrolled(million, state, jump).virtual);
      const range = w.visibleItems(million, state.virtual);
      expect(range.end - range.start).toBeGreaterThan(0);
      expect(range.end - range.start).toBeLessThan(50);
      expect(w.topOf(million, state, range.start)).toBeGreaterThan(-3 * 130);
      expect(w.topOf(million, state, range.end - 1)).toBeLessThan(w.MAX_HEIGHT + 3 * 130);
    }
  });
});

describe("keys", () => {
  it("move by one, by a row, by a screen and to the ends", () => {
    expect(w.moved(small, 10, "ArrowDown")).toBe(18);
    expect(w.moved(small, 0, "ArrowLeft")).toBe(0);
    expect(w.moved(small, 10, "PageDown")).toBe(42);
    expect(w.moved(small, 10, "End")).toBe(999);
    expect(w.moved(small, 10, "Home")).toBe(0);
    expect(w.moved(small, 10, "a")).toBeNull();
    expect(w.moved({ ...small, total: 0 }, -1, "End")).toBeNull();
    expect(w.moved(small, -1, "ArrowRight")).toBe(0);
  });

  it("reveal an item with the least move", () => {
    expect(w.revealed(small, top, 0)).toEqual(top);
    expect(w.revealed(small, top, 8 * 4).virtual).toBe(150);
    expect(w.revealed(small, { physical: 3000, virtual: 3000 }, 8).virtual).toBe(150);
  });
});

it("pages hold a range", () => {
  expect(w.pagesOf({ start: 150, end: 401 }, 200)).toEqual([0, 1, 2]);
  expect(w.pagesOf({ start: 200, end: 400 }, 200)).toEqual([1]);
  expect(w.pagesOf({ start: 0, end: 0 }, 200)).toEqual([]);
});
