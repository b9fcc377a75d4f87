import { expect, it } from "vitest";

import { fromFragment, START, toFragment, type View } from "./address";

const view: View = {
  mode: "map",
  text: "year >= 2020 and name like '50%&#'",
  facets: { 'a "b"': ["<i>", null, 2, true] },
  order: "year",
  descending: true,
  words: "a dog & a cat #1",
  hybrid: "caption & more",
};

it("reads what it wrote", () => {
  expect(fromFragment("#" + toFragment(view))).toEqual(view);
  expect(fromFragment(toFragment({ ...view, descending: false })).descending).toBe(false);
});

it("shows nothing for the start", () => {
  expect(toFragment(START)).toBe("");
  expect(fromFragment("")).toEqual(START);
});

it("leaves out what does not fit", () => {
  expect(fromFragment("#mode=steal&facets=[1]")).toEqual(START);
  expect(fromFragment("#facets={%22a%22:[{}],%22b%22:[1]}").facets).toEqual({ b: [1] });
  expect(fromFragment("#facets={")).toEqual(START);
});
