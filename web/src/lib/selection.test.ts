import { expect, it } from "vitest";

import { EMPTY, extended, has, ofHandle, only, target, toggle } from "./selection";

it("toggles items and remembers where a range begins", () => {
  const two = toggle(toggle(EMPTY, 5), 7);
  expect([...two.ids]).toEqual([5, 7]);
  expect(two.anchor).toBe(7);
  expect(toggle(two, 5).count).toBe(1);
  expect(EMPTY.count).toBe(0);
});

it("extends by the items of a range, each once, and keeps where it begins", () => {
  const three = extended(only(10), [30, 20, 10]);
  expect([three.count, three.anchor]).toEqual([3, 10]);
});

it("sends ids or the handle", () => {
  expect(target(only(3))).toEqual({ ids: [3] });
  expect(target(ofHandle("h", 1_000_000))).toEqual({ selection: "h" });
  expect(ofHandle("h", 0)).toBe(EMPTY);
});

it("shows a selection of the server only where it is what the grid shows", () => {
  expect(has(ofHandle("h", 9), 4, true)).toBe(true);
  expect(has(ofHandle("h", 9), 4, false)).toBe(false);
  expect(has(only(4), 4, false)).toBe(true);
});

it("begins anew when an item is toggled after a selection of the server", () => {
  expect([...toggle(ofHandle("h", 9), 4).ids]).toEqual([4]);
});
