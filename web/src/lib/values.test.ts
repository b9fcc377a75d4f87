import { expect, it } from "vitest";

import { counted, parseValue } from "./values";

it("gives numbers and booleans to the columns that have them, and text to the others", () => {
  expect(parseValue(" 12.5 ", "number")).toBe(12.5);
  expect(parseValue("12", "text")).toBe("12");
  expect(parseValue("twelve", "number")).toBe("twelve");
  expect(parseValue("True", "boolean")).toBe(true);
  expect(parseValue("0x10", undefined)).toBe("0x10");
  expect(parseValue("", "number")).toBe("");
});

it("counts one thing in the singular", () => {
  expect([0, 1, 2000].map((count) => counted(count, "label"))).toEqual(["0 labels", "1 label", `${(2000).toLocaleString()} labels`]);
});
