import { expect, it } from "vitest";

import { choicesOf, extendedBy, fitting, meant } from "./choices";

const animals = ["cat", "dog", "wildcat", "Cow"];

it("gives a key to nine classes", () => {
  const keys = choicesOf(Array.from({ length: 11 }, (_, place) => String(place))).map(({ key }) => key);
  expect(keys).toEqual(["1", "2", "3", "4", "5", "6", "7", "8", "9", null, null]);
});

it("finds classes by their beginning first", () => {
  expect(fitting(animals, "cat")).toEqual(["cat", "wildcat"]);
  expect(fitting(animals, "c")).toEqual(["cat", "Cow", "wildcat"]);
  expect(fitting(animals, " ")).toEqual(animals);
});

it("takes the exact name, else what fits, else a new class", () => {
  expect(meant(["wildcat", "cat"], "cat")).toBe("cat");
  expect(meant(animals, "wild")).toBe("wildcat");
  expect(meant(animals, " horse ")).toBe("horse");
  expect(meant(animals, "  ")).toBeNull();
});

it("appends new classes and keeps the order", () => {
  expect(extendedBy(["b", "a"], ["a", "c"])).toEqual(["b", "a", "c"]);
});
